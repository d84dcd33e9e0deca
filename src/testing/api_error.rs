//! Makes error bodies in OpenAI's form: [`ApiError`].

use std::fmt::Display;

use serde_json::{Value, json};

/// The code of an account without money.
const NO_CREDIT: &str = "insufficient_quota";

/// A refusal: a status and the four fields of OpenAI's error body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: u16,
    pub(super) message: String,
    pub(super) kind: &'static str,
    pub(super) param: Option<&'static str>,
    pub(super) code: Option<String>,
}

impl ApiError {
    /// Makes a refusal of the type `invalid_request_error`, as nearly all are.
    pub(super) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), kind: "invalid_request_error", param: None, code: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    pub(super) fn with_param(mut self, param: &'static str) -> Self {
        self.param = Some(param);
        self
    }

    pub(super) fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    pub(super) fn with_kind(mut self, kind: &'static str) -> Self {
        self.kind = kind;
        self
    }

    /// Makes the refusal that a script asks for. That of an account without money has its code as its type too.
    pub(super) fn scripted(status: u16, code: &str, message: &str) -> Self {
        let error = Self::new(status, message).with_code(code);
        if code == NO_CREDIT { error.with_kind(NO_CREDIT) } else { error }
    }

    /// Makes the refusal of an account without money.
    pub(super) fn no_credit() -> Self {
        let message = "You exceeded your current quota, please check your plan and billing details.";
        Self::scripted(429, NO_CREDIT, message)
    }

    pub(super) fn not_json() -> Self {
        Self::bad_request("We could not parse the JSON body of your request.")
    }

    /// Makes the refusal of more than so many bytes.
    pub(super) fn too_large(most: impl Display) -> Self {
        Self::new(413, format!("Maximum content size limit ({most}) exceeded."))
    }

    pub(super) fn no_file(id: &str) -> Self {
        Self::new(404, format!("No such File object: {id}")).with_param("id")
    }

    pub(super) fn no_batch(id: &str) -> Self {
        Self::new(404, format!("No batch found with id '{id}'."))
    }

    /// Makes the failure of the simulator's own machine.
    pub(super) fn broken(error: &std::io::Error) -> Self {
        Self::new(500, format!("The simulator cannot use its temporary files: {error}")).with_kind("server_error")
    }

    pub(super) fn body(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }
}
