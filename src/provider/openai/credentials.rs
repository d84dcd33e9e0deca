//! Holds the key and other secrets of a request, checks them and makes headers of them.

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use crate::{Result, http::headers};

/// The secrets of a request.
#[derive(Clone, Default)]
pub(super) struct Credentials {
    pub(super) key: Option<SecretString>,
    pub(super) organization: Option<SecretString>,
    pub(super) project: Option<SecretString>,
    pub(super) headers: Vec<(String, SecretString)>,
}

/// The header that a key goes into.
#[derive(Clone, Copy)]
pub(super) enum KeyHeader {
    /// `Authorization: Bearer KEY`.
    Bearer,
    /// `api-key: KEY`, as Azure has it.
    ApiKey,
}

impl Credentials {
    pub(super) const fn is_empty(&self) -> bool {
        self.key.is_none() && self.organization.is_none() && self.project.is_none() && self.headers.is_empty()
    }

    /// Checks the key and returns the headers of every request.
    pub(super) fn headers(&self, key_header: KeyHeader) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let mut add = |name: &str, value: &SecretString| -> Result<()> {
            let (name, value) = headers::secret_header(name, value)?;
            headers.insert(name, value);
            Ok(())
        };
        if let Some(key) = &self.key {
            headers::check_key(key, "OPENAI_API_KEY, `with_api_key`")?;
            match key_header {
                KeyHeader::Bearer => {
                    add("authorization", &SecretString::from(format!("Bearer {}", key.expose_secret())))?;
                }
                KeyHeader::ApiKey => add("api-key", key)?,
            }
        }
        if let Some(organization) = &self.organization {
            add("openai-organization", organization)?;
        }
        if let Some(project) = &self.project {
            add("openai-project", project)?;
        }
        // The caller's own headers come last, to replace any of these.
        for (name, value) in &self.headers {
            add(name, value)?;
        }
        Ok(headers)
    }
}
