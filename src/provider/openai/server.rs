//! Says which server answers (OpenAI, Azure or another one), and what differs between them.

use reqwest::Url;

use super::credentials::KeyHeader;
use crate::{Error, ErrorKind, Payee, Result, Tier, http::base_url};

/// OpenAI's own server.
const BASE_URL: &str = "https://api.openai.com/v1";

/// The server that requests go to: Azure if it is set, else the base URL's server, else OpenAI.
#[derive(Clone, Default)]
pub(super) struct Server {
    pub(super) base_url: Option<String>,
    pub(super) azure: Option<Azure>,
}

/// A deployment at Azure.
#[derive(Clone)]
pub(super) struct Azure {
    pub(super) endpoint: String,
    pub(super) deployment: String,
    pub(super) api_version: Option<String>,
}

impl Server {
    /// Whether no other server was named, so that requests go to OpenAI.
    pub(super) const fn is_openai(&self) -> bool {
        self.base_url.is_none() && self.azure.is_none()
    }

    /// Returns the URL that requests go to.
    pub(super) fn url(&self) -> Result<Url> {
        if let Some(azure) = &self.azure {
            azure.check()?;
        }
        let base = match &self.azure {
            Some(azure) => &azure.endpoint,
            None => self.base_url.as_deref().unwrap_or(BASE_URL),
        };
        // The error does not quote the URL, which may hold a password.
        let unusable =
            |what: &str| Error::new(ErrorKind::Config, format!("the base URL {what}: give one like {BASE_URL}"));
        let mut url = base_url::parse(base).map_err(unusable)?;
        {
            let mut path = url.path_segments_mut().map_err(|()| unusable("cannot have a path"))?;
            path.pop_if_empty();
            if let Some(azure) = &self.azure {
                match azure.api_version {
                    Some(_) => path.extend(["openai", "deployments", &azure.deployment]),
                    None => path.extend(["openai", "v1"]),
                };
            }
            path.push("embeddings");
        }
        if let Some(version) = self.azure.as_ref().and_then(|azure| azure.api_version.as_deref()) {
            url.query_pairs_mut().append_pair("api-version", version);
        }
        Ok(url)
    }

    /// Returns who bills the requests. Another host is never billed as OpenAI.
    pub(super) fn payee(&self, url: &Url, model: &str) -> Payee {
        let provider = match (&self.azure, url.host_str()) {
            (Some(_), _) => "azure",
            (None, Some("api.openai.com") | None) => "openai",
            (None, Some(host)) => host,
        };
        Payee::new(provider, model, Tier::Standard)
    }

    /// Returns the first part of the text of `Display`.
    pub(super) const fn short_name(&self) -> &'static str {
        if self.azure.is_some() { "azure" } else { "openai" }
    }

    /// Returns OpenTelemetry's name of the provider.
    pub(super) const fn vendor(&self) -> &'static str {
        if self.azure.is_some() { "azure.ai.openai" } else { "openai" }
    }

    /// Returns the header that the key goes into.
    pub(super) const fn key_header(&self) -> KeyHeader {
        if self.azure.is_some() { KeyHeader::ApiKey } else { KeyHeader::Bearer }
    }

    /// Returns the model's name in the request; `None` if the URL names the model.
    pub(super) fn model_in_body<'m>(&'m self, model: &'m str) -> Option<&'m str> {
        match &self.azure {
            Some(azure) if azure.api_version.is_some() => None,
            Some(azure) => Some(&azure.deployment),
            None => Some(model),
        }
    }
}

impl Azure {
    /// Refuses empty names, which would make another path.
    fn check(&self) -> Result<()> {
        let what = if self.deployment.is_empty() {
            "the deployment's name is empty: give the one that Azure shows"
        } else if self.api_version.as_deref() == Some("") {
            "the version of the API is empty: give one, or None for the path that needs none"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Config, format!("`with_azure`: {what}")))
    }
}
