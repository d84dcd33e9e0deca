//! Builds an [`OpenAi`]: [`OpenAiBuilder`] takes the server, the credentials and the space.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::Duration,
};

use secrecy::SecretString;

use super::{
    body_fields::BodyFields,
    credentials::Credentials,
    embedder::OpenAi,
    endpoint::{Endpoint, OpenAiEncoding},
    models,
    prompted_models::{self, Family},
    server::{Azure, Server},
    tokens::Cl100kCounter,
};
use crate::{
    Error, ErrorKind, InputKind, Limits, Normalization, Payee, Prompts, Result, Space, SpaceBuilder, TokenCount,
    http::{Http, HttpOptions, base_url},
};

impl OpenAi {
    /// Builds an embedder of one of OpenAI's models, with the key and the server that the environment names.
    ///
    /// | variable | meaning |
    /// |---|---|
    /// | `OPENAI_API_KEY` | the key; required unless `OPENAI_BASE_URL` is set |
    /// | `OPENAI_BASE_URL` | another server, up to and including `/v1` |
    /// | `OPENAI_ORG_ID`, `OPENAI_PROJECT_ID` | whom to bill, if the key can bill several |
    ///
    /// # Errors
    /// Those of [`OpenAiBuilder::build`].
    pub fn from_env(model: impl Into<String>) -> Result<Self> {
        Self::builder(model).with_env().build()
    }

    /// Returns a builder for a model, by OpenAI's name or the server's.
    pub fn builder(model: impl Into<String>) -> OpenAiBuilder {
        OpenAiBuilder::new(model.into())
    }
}

/// Builds an [`OpenAi`].
///
/// ```
/// use docvector_embed::{Prompts, Space, provider::OpenAi};
/// # fn main() -> docvector_embed::Result<()> {
/// // One of OpenAI's models, with fewer dimensions.
/// let large = OpenAi::builder("text-embedding-3-large").with_api_key("sk-...").with_dimensions(256).build()?;
/// assert_eq!(large.to_string(), "openai/text-embedding-3-large");
/// // Your own model behind a compatible server: give the space of its vectors.
/// let space = Space::builder("intfloat/e5-base-v2", 768).build()?;
/// let own = OpenAi::builder("intfloat/e5-base-v2")
///     .with_base_url("http://127.0.0.1:8000/v1")
///     .with_space(space)
///     .with_prompts(Prompts::new("passage: ", "query: "))
///     .build()?;
/// # Ok(()) }
/// ```
///
/// # Default
/// - OpenAI's server; no organization, no project;
/// - vectors as base64;
/// - 10 s to connect, 120 s for a whole call;
/// - no proxy, whatever the environment says;
/// - for OpenAI's models, their space, their [limits](crate::provider::OpenAi#semantics), and 8 concurrent requests;
/// - for other models, 64 texts per request, or fewer once the server has said that it takes fewer.
#[derive(Clone)]
pub struct OpenAiBuilder {
    model: String,
    server: Server,
    credentials: Credentials,
    dimensions: Option<usize>,
    space: Option<Space>,
    prompts: Option<Prompts>,
    without_prompts: bool,
    limits: Option<Limits>,
    encoding: OpenAiEncoding,
    body_fields: BodyFields,
    plain_http: bool,
    payee: Option<Payee>,
    http: HttpOptions,
    for_service: bool,
}

impl OpenAiBuilder {
    pub(super) fn new(model: String) -> Self {
        Self {
            model,
            server: Server::default(),
            credentials: Credentials::default(),
            dimensions: None,
            space: None,
            prompts: None,
            without_prompts: false,
            limits: None,
            encoding: OpenAiEncoding::Base64,
            body_fields: BodyFields::default(),
            plain_http: false,
            payee: None,
            http: HttpOptions::default(),
            for_service: false,
        }
    }

    /// Reads `OPENAI_API_KEY`, `OPENAI_BASE_URL`, `OPENAI_ORG_ID` and `OPENAI_PROJECT_ID`. A variable that is unset or
    /// empty changes nothing.
    #[must_use]
    pub fn with_env(mut self) -> Self {
        let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let secret = |name: &str, before: Option<SecretString>| read(name).map(SecretString::from).or(before);
        self.server.base_url = read("OPENAI_BASE_URL").or(self.server.base_url);
        let credentials = &mut self.credentials;
        credentials.key = secret("OPENAI_API_KEY", credentials.key.take());
        credentials.organization = secret("OPENAI_ORG_ID", credentials.organization.take());
        credentials.project = secret("OPENAI_PROJECT_ID", credentials.project.take());
        self
    }

    /// Sets the key. Without a key, requests have no `Authorization` header, as local servers expect.
    #[must_use]
    pub fn with_api_key(mut self, key: impl Into<String>) -> Self {
        self.credentials.key = Some(SecretString::from(key.into()));
        self
    }

    /// Sets the server's URL, up to and including `/v1`.
    #[must_use]
    pub fn with_base_url(mut self, url: impl Into<String>) -> Self {
        self.server.base_url = Some(url.into());
        self
    }

    /// Sets the organization that is billed.
    #[must_use]
    pub fn with_organization(mut self, organization: impl Into<String>) -> Self {
        self.credentials.organization = Some(SecretString::from(organization.into()));
        self
    }

    /// Sets the project that is billed.
    #[must_use]
    pub fn with_project(mut self, project: impl Into<String>) -> Self {
        self.credentials.project = Some(SecretString::from(project.into()));
        self
    }

    /// Uses a deployment at Azure instead of another server.
    ///
    /// The arguments are its endpoint (`https://NAME.openai.azure.com`), its name, and the version of the API. Without
    /// a version, requests use the path that needs none (`/openai/v1`). The key goes into the header `api-key`. The
    /// builder's model stays the name of the deployed model, which names the space.
    #[must_use]
    pub fn with_azure(
        mut self,
        endpoint: impl Into<String>,
        deployment: impl Into<String>,
        api_version: Option<&str>,
    ) -> Self {
        let api_version = api_version.map(str::to_owned);
        self.server.azure = Some(Azure { endpoint: endpoint.into(), deployment: deployment.into(), api_version });
        self
    }

    /// Asks for fewer dimensions than the model has. The result lies in another space.
    #[must_use]
    pub const fn with_dimensions(mut self, dimensions: usize) -> Self {
        self.dimensions = Some(dimensions);
        self
    }

    /// Sets the space of a model that is not OpenAI's. The embedder puts the space's prompts before the texts, unless
    /// the [server applies them](crate::PromptsBy::Server).
    ///
    /// The space can be that of another embedder of the same model, such as a local one, or a stored one
    /// ([`Space::to_text`]). [One model at two vendors](Space#one-model-at-two-vendors) is one space.
    #[must_use]
    pub fn with_space(mut self, space: Space) -> Self {
        self.space = Some(space);
        self
    }

    /// Sets the prompts, which go before documents and queries. They become part of the space. Whatever they are, they
    /// are taken as you state them; `Prompts::new("", "")` states that there are none.
    #[must_use]
    pub fn with_prompts(mut self, prompts: Prompts) -> Self {
        self.prompts = Some(prompts);
        self
    }

    /// Sends the texts unchanged to a model that was trained with prompts, because they already begin with them or need
    /// none. The space then has no prompts. (If the server adds the prompts, use [`Prompts::by_server`].)
    #[must_use]
    pub const fn without_prompts(mut self) -> Self {
        self.without_prompts = true;
        self
    }

    /// Sets the limits of a request.
    ///
    /// For OpenAI's models, each limit that is not set stays as OpenAI has it, and OpenAI's counter counts the tokens
    /// unless the limits have another one. For other models, limits that are set replace the default as a whole, and a
    /// limit of tokens per text requires a counter, such as `TokenizerCounter` (feature `tokenizers`). Without one, the
    /// server may reject over-long texts or silently truncate them.
    ///
    /// If a server refuses a request and says how many texts it takes, the embedder and its clones remember that, and
    /// [`EmbedderExt`](crate::EmbedderExt) splits the refused call and sends its parts. Limits that fit from the
    /// beginning save that request.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Sets the encoding of vectors that requests ask for.
    #[must_use]
    pub const fn with_encoding(mut self, encoding: OpenAiEncoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// Adds a field to the body of every request, for servers that know more than OpenAI's fields: `truncate` at NVIDIA
    /// NIM, say. The value is whatever serde can write as JSON. If a name is set twice, the later value counts.
    ///
    /// Most such fields change the vectors, so they belong to the space:
    /// - For OpenAI's models without [`with_space`](Self::with_space), the fields become a part of the space's identity,
    ///   as its revision. Only OpenAI's `user` does not. Without fields, the space is what it always was.
    /// - A space that you give stays as you give it. If the fields change its vectors, say so there:
    ///   [`SpaceBuilder::with_revision`](crate::SpaceBuilder::with_revision).
    ///
    /// A value is not a secret: keys belong in [`with_header`](Self::with_header). If a field lets the server truncate
    /// texts, results do not name those texts.
    ///
    /// [`build`](Self::build) refuses `input`, `model`, `dimensions` and `encoding_format`, which every request has.
    ///
    /// ```
    /// use docvector_embed::{InputKind, Space, provider::OpenAi};
    /// # fn main() -> docvector_embed::Result<()> {
    /// let nim = OpenAi::builder("nvidia/nv-embedqa-e5-v5")
    ///     .with_base_url("http://127.0.0.1:8000/v1")
    ///     .with_space(Space::builder("nvidia/nv-embedqa-e5-v5", 1024).build()?)
    ///     .with_body_field("truncate", "NONE")
    ///     .with_body_field_for(InputKind::Document, "input_type", "passage")
    ///     .with_body_field_for(InputKind::Query, "input_type", "query")
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn with_body_field(mut self, name: impl Into<String>, value: impl serde::Serialize) -> Self {
        self.body_fields.set(&[InputKind::Document, InputKind::Query], name.into(), &value);
        self
    }

    /// Adds a field to the body of requests of one kind of texts, such as `input_type`, which tells documents from
    /// queries. Otherwise it is as [`with_body_field`](Self::with_body_field) says.
    #[must_use]
    pub fn with_body_field_for(
        mut self,
        kind: InputKind,
        name: impl Into<String>,
        value: impl serde::Serialize,
    ) -> Self {
        self.body_fields.set(&[kind], name.into(), &value);
        self
    }

    /// Sets the time limit of a whole call, from connecting to the last byte.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.http.timeout = timeout;
        self
    }

    /// Sets the time limit of connecting.
    #[must_use]
    pub const fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.http.connect_timeout = timeout;
        self
    }

    /// Sets the proxy that requests go through. The environment's proxies are never used.
    #[must_use]
    pub fn with_proxy(mut self, url: impl Into<String>) -> Self {
        self.http.proxy = Some(SecretString::from(url.into()));
        self
    }

    /// Sets who is paid for the calls. The default is the host's name, `openai` for OpenAI's own server and `azure` for
    /// Azure.
    #[must_use]
    pub fn with_payee(mut self, payee: Payee) -> Self {
        self.payee = Some(payee);
        self
    }

    /// Adds a header to every request. Its value counts as a secret.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.credentials.headers.push((name.into(), SecretString::from(value.into())));
        self
    }

    /// Allows requests with a key over an unencrypted connection to another machine.
    #[must_use]
    pub const fn with_plain_http(mut self) -> Self {
        self.plain_http = true;
        self
    }

    /// Lets requests say in headers how a batch is to be embedded, as the crate's own service reads it.
    #[cfg(feature = "remote")]
    pub(in crate::provider) const fn for_service(mut self) -> Self {
        self.for_service = true;
        self
    }

    /// Builds the embedder. It does not connect yet.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) names what is missing or wrong: no key for OpenAI's own server, no space for a
    /// model that is not OpenAI's, an unusable URL, key, header or proxy, dimensions that the model does not have, a
    /// time or limit of zero, a body field that every request has already, no word about prompts for a model that was
    /// trained with them, a key that would be sent unencrypted.
    pub fn build(self) -> Result<OpenAi> {
        self.check_values()?;
        let url = self.server.url()?;
        if self.server.is_openai() && self.credentials.key.is_none() {
            let message = "OpenAI's server needs a key: set OPENAI_API_KEY and use `from_env`, or call `with_api_key`";
            return Err(config(message));
        }
        // Through a proxy, the request leaves this machine even if its URL names this machine.
        let stays_here = base_url::is_loopback(&url) && self.http.proxy.is_none();
        if !self.credentials.is_empty() && url.scheme() == "http" && !stays_here && !self.plain_http {
            let message =
                "the key would go unencrypted to another machine: use https, or allow it by `with_plain_http`";
            return Err(config(message));
        }
        let headers = self.credentials.headers(self.server.key_header())?;
        let space = self.checked_space()?;
        self.check_prompts(&space)?;
        let limits = self.checked_limits(&space)?;
        let http = Http::new(&self.http, url.scheme() == "https" || self.http.proxy.is_some())?;
        Ok(OpenAi(Arc::new(Endpoint {
            name: format!("{}/{}", self.server.short_name(), self.model),
            vendor: self.server.vendor(),
            payee: self.payee.clone().unwrap_or_else(|| self.server.payee(&url, &self.model)),
            url,
            headers,
            model: self.server.model_in_body(&self.model).map(str::to_owned),
            dimensions: self.dimensions,
            encoding: self.encoding,
            body_fields: self.body_fields,
            space,
            limits,
            told_texts: AtomicUsize::new(usize::MAX),
            http,
            told_other_model: AtomicBool::new(false),
            is_own_service: self.for_service.then(AtomicBool::default),
        })))
    }

    /// Refuses numbers and names with which no call could succeed.
    fn check_values(&self) -> Result<()> {
        self.body_fields.check()?;
        if self.model.is_empty() {
            return Err(config("the model's name is empty: give it to `OpenAi::builder`"));
        }
        let times = [("with_timeout", self.http.timeout), ("with_connect_timeout", self.http.connect_timeout)];
        if let Some((setter, _)) = times.into_iter().find(|(_, time)| time.is_zero()) {
            return Err(config(format!("`{setter}` of zero would end every call: give a longer time")));
        }
        let limits = self.limits.clone().unwrap_or_default();
        let numbers = [
            ("texts", limits.texts),
            ("bytes", limits.bytes),
            ("tokens_per_text", limits.tokens_per_text),
            ("tokens_per_call", limits.tokens_per_call),
            ("in_flight", limits.in_flight),
        ];
        match numbers.into_iter().find(|&(_, number)| number == Some(0)) {
            Some((name, _)) => {
                Err(config(format!("`with_limits`: {name} is 0, which no call can keep: give 1 or more")))
            }
            None => Ok(()),
        }
    }

    /// Refuses a model that is known to need prompts if the caller says nothing about prompts. Noticed later, the
    /// documents would already be embedded, in a space of their own. What the caller says is never judged.
    fn check_prompts(&self, space: &Space) -> Result<()> {
        let prompts = space.prompts();
        if self.without_prompts && (prompts.document.is_some() || prompts.query.is_some()) {
            let message = "`without_prompts` says that the texts have their prompts, but the space or `with_prompts` has \
                           prompts too: leave one of them out";
            return Err(config(message));
        }
        if self.without_prompts || self.prompts.is_some() || *prompts != Prompts::default() {
            return Ok(());
        }
        match [space.model(), &self.model].into_iter().find_map(prompted_models::usual_prompts) {
            None => Ok(()),
            Some(usual) => Err(config(missing_prompts(space.model(), usual))),
        }
    }

    /// Returns the limits of a request: those that were set, else the known ones of OpenAI's models.
    fn checked_limits(&self, space: &Space) -> Result<Limits> {
        let mut limits = self.limits.clone().unwrap_or_default();
        if models::find(&self.model).is_some() {
            let own = models::limits();
            limits.texts = limits.texts.or(own.texts);
            limits.bytes = limits.bytes.or(own.bytes);
            limits.tokens_per_text = limits.tokens_per_text.or(own.tokens_per_text);
            limits.tokens_per_call = limits.tokens_per_call.or(own.tokens_per_call);
            limits.in_flight = limits.in_flight.or(own.in_flight);
            if matches!(limits.tokens, TokenCount::Unknown) {
                limits.tokens = TokenCount::Exact(Arc::new(Cl100kCounter::new(space.prompts().clone())));
            }
        } else if self.limits.is_none() {
            limits = models::unknown_limits();
        }
        if limits.tokens_per_text.is_some() && !matches!(limits.tokens, TokenCount::Exact(_)) {
            let message = "a limit of tokens per text cannot be kept without a counter: give one \
                           (`Limits::with_tokens(TokenCount::Exact(..))`, such as `TokenizerCounter` of the feature \
                           `tokenizers`), or leave the limit to the server";
            return Err(config(message));
        }
        Ok(limits)
    }

    /// Returns the space of the vectors: the one that was set, else that of OpenAI's model.
    fn checked_space(&self) -> Result<Space> {
        let space = match (&self.space, models::find(&self.model)) {
            (Some(space), _) => space.clone(),
            (None, Some(model)) => {
                let dimensions = match self.dimensions {
                    None => model.dimensions,
                    Some(_) if !model.shortens => {
                        return Err(config(format!(
                            "{} has {} dimensions and no others",
                            model.name, model.dimensions
                        )));
                    }
                    Some(fewer) if (1..=model.dimensions).contains(&fewer) => fewer,
                    Some(other) => {
                        let message =
                            format!("{other} dimensions of {}: it can have 1 to {}", model.name, model.dimensions);
                        return Err(config(message));
                    }
                };
                let space = Space::builder(model.name, dimensions).with_normalization(Normalization::L2);
                self.body_fields.revision().into_iter().fold(space, SpaceBuilder::with_revision).build()?
            }
            (None, None) => {
                let message = format!(
                    "{:?} is not one of OpenAI's embedding models: check the name, or give the space of its vectors by \
                     `OpenAi::builder(..).with_env().with_space(..)`",
                    self.model
                );
                return Err(config(message));
            }
        };
        if let Some(asked) = self.dimensions.filter(|&asked| asked != space.dimensions()) {
            return Err(config(format!(
                "`with_dimensions` asks for {asked}, but the space has {}: leave it out, or change the space",
                space.dimensions()
            )));
        }
        match &self.prompts {
            None => Ok(space),
            Some(prompts) => {
                let own = space.prompts();
                if (own.document.is_some() || own.query.is_some()) && own != prompts {
                    return Err(config(
                        "the space has other prompts than those of `with_prompts`: set them in one place only",
                    ));
                }
                space.to_builder().with_prompts(prompts.clone()).build()
            }
        }
    }
}

impl fmt::Debug for OpenAiBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiBuilder").field("model", &self.model).finish_non_exhaustive()
    }
}

/// Says which prompts a model needs, and how they are given.
fn missing_prompts(model: &str, usual: &Family) -> String {
    let Family { document, query, is_instructed, .. } = *usual;
    let trained = match (document, is_instructed) {
        ("", false) => format!("with the prompt {query:?} before each query"),
        ("", true) => format!("with an instruction before each query, of the form {query:?}"),
        _ => format!("with the prompts {document:?} before each document and {query:?} before each query"),
    };
    format!(
        "{model} was trained {trained}: give them by `with_prompts(Prompts::new({document:?}, {query:?}))` (as \
         `Prompts::by_server` if the server adds them), or call `without_prompts` if the texts have them or need none"
    )
}

fn config(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}
