//! Builds an [`OpenAi`]: [`OpenAiBuilder`] says where it is, who asks, and what its vectors are.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use reqwest::{
    Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};

use super::{
    embedder::OpenAi,
    endpoint::{Inner, OpenAiEncoding},
    models,
    tokens::Cl100k,
};
use crate::{
    Error, ErrorKind, InputKind, Limits, Normalization, Payee, Prompts, PromptsBy, Result, Space, Tier, TokenCount,
    http::{Http, HttpOptions, headers},
};

/// Where OpenAI answers.
const BASE_URL: &str = "https://api.openai.com/v1";

impl OpenAi {
    /// Connects to OpenAI, or to what the environment names, with one of OpenAI's models.
    ///
    /// | variable | meaning |
    /// |---|---|
    /// | `OPENAI_API_KEY` | the key; needed unless `OPENAI_BASE_URL` is set |
    /// | `OPENAI_BASE_URL` | another server, `/v1` included |
    /// | `OPENAI_ORG_ID`, `OPENAI_PROJECT_ID` | whom to bill, where the key can bill several |
    ///
    /// # Errors
    /// Those of [`OpenAiBuilder::build`].
    pub fn from_env(model: impl Into<String>) -> Result<Self> {
        Self::builder(model).with_env().build()
    }

    /// Begins with a model, by OpenAI's name or the server's.
    pub fn builder(model: impl Into<String>) -> OpenAiBuilder {
        OpenAiBuilder::new(model.into())
    }
}

/// Builds an [`OpenAi`].
///
/// ```
/// use docvector_embed::{Prompts, Space, provider::OpenAi};
/// # fn main() -> docvector_embed::Result<()> {
/// // One of OpenAI's models, shortened.
/// let large = OpenAi::builder("text-embedding-3-large").with_api_key("sk-...").with_dimensions(256).build()?;
/// assert_eq!(large.to_string(), "openai/text-embedding-3-large");
/// // A model of one's own behind a compatible server: say what its vectors are.
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
/// - OpenAI's endpoint; no organisation, no project;
/// - base64 on the wire;
/// - 10 s to connect, 120 s for a whole call;
/// - no proxy, whatever the environment says;
/// - for OpenAI's models, their space and [limits](crate::provider::OpenAi#semantics), and 8 requests at once;
/// - for others, 2,048 texts a request.
#[derive(Clone)]
pub struct OpenAiBuilder {
    model: String,
    base_url: Option<String>,
    key: Option<SecretString>,
    organization: Option<SecretString>,
    project: Option<SecretString>,
    headers: Vec<(String, SecretString)>,
    azure: Option<Azure>,
    dimensions: Option<usize>,
    space: Option<Space>,
    prompts: Option<Prompts>,
    unprompted: bool,
    limits: Option<Limits>,
    encoding: OpenAiEncoding,
    plain_http: bool,
    payee: Option<Payee>,
    http: HttpOptions,
}

#[derive(Clone)]
struct Azure {
    endpoint: String,
    deployment: String,
    api_version: Option<String>,
}

impl OpenAiBuilder {
    pub(super) fn new(model: String) -> Self {
        Self {
            model,
            base_url: None,
            key: None,
            organization: None,
            project: None,
            headers: Vec::new(),
            azure: None,
            dimensions: None,
            space: None,
            prompts: None,
            unprompted: false,
            limits: None,
            encoding: OpenAiEncoding::Base64,
            plain_http: false,
            payee: None,
            http: HttpOptions::default(),
        }
    }

    /// Reads `OPENAI_API_KEY`, `OPENAI_BASE_URL`, `OPENAI_ORG_ID` and `OPENAI_PROJECT_ID`. What is not set, or is empty,
    /// leaves things as they are.
    #[must_use]
    pub fn with_env(mut self) -> Self {
        let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        self.key = read("OPENAI_API_KEY").map(SecretString::from).or(self.key);
        self.base_url = read("OPENAI_BASE_URL").or(self.base_url);
        self.organization = read("OPENAI_ORG_ID").map(SecretString::from).or(self.organization);
        self.project = read("OPENAI_PROJECT_ID").map(SecretString::from).or(self.project);
        self
    }

    /// Sets the key. Without one, no `Authorization` is sent, as local servers like it.
    #[must_use]
    pub fn with_api_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(SecretString::from(key.into()));
        self
    }

    /// Sets the server, up to and with `/v1`.
    #[must_use]
    pub fn with_base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = Some(url.into());
        self
    }

    /// Sets the organisation that is billed.
    #[must_use]
    pub fn with_organization(mut self, organization: impl Into<String>) -> Self {
        self.organization = Some(SecretString::from(organization.into()));
        self
    }

    /// Sets the project that is billed.
    #[must_use]
    pub fn with_project(mut self, project: impl Into<String>) -> Self {
        self.project = Some(SecretString::from(project.into()));
        self
    }

    /// Uses a deployment at Azure: its endpoint (`https://NAME.openai.azure.com`), its name, and the version of the API;
    /// without a version, the path that needs none (`/openai/v1`). The key goes into `api-key`. The builder's model
    /// stays the name of the model that is deployed there: it names the space.
    #[must_use]
    pub fn with_azure(
        mut self,
        endpoint: impl Into<String>,
        deployment: impl Into<String>,
        api_version: Option<&str>,
    ) -> Self {
        let api_version = api_version.map(str::to_owned);
        self.azure = Some(Azure { endpoint: endpoint.into(), deployment: deployment.into(), api_version });
        self
    }

    /// Asks for fewer dimensions than the model has, which makes another space.
    #[must_use]
    pub const fn with_dimensions(mut self, dimensions: usize) -> Self {
        self.dimensions = Some(dimensions);
        self
    }

    /// Says what the vectors of a model that is not OpenAI's are. Its prompts are put before the texts here, unless they
    /// are [applied by the server](crate::PromptsBy::Server).
    #[must_use]
    pub fn with_space(mut self, space: Space) -> Self {
        self.space = Some(space);
        self
    }

    /// Sets the strings put before documents and queries. They become part of the space.
    #[must_use]
    pub fn with_prompts(mut self, prompts: Prompts) -> Self {
        self.prompts = Some(prompts);
        self
    }

    /// Sends texts of a model that was trained with prompts as they are, because they have their prompts already. The
    /// space is one without prompts then. (Where the server adds them, say [`Prompts::by_server`].)
    #[must_use]
    pub const fn without_prompts(mut self) -> Self {
        self.unprompted = true;
        self
    }

    /// Sets what a request may hold. Of OpenAI's models, what is not set stays as OpenAI has it, and tokens are counted as
    /// OpenAI does unless another counter is given. For other models, a limit of tokens a text needs a counter: without
    /// one, over-long texts are the server's to refuse, or to cut without a word.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Sets how vectors are asked for.
    #[must_use]
    pub const fn with_encoding(mut self, encoding: OpenAiEncoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// Sets how long a whole call may take, from connecting to the last byte.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.http.timeout = timeout;
        self
    }

    /// Sets how long connecting may take.
    #[must_use]
    pub const fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.http.connect_timeout = timeout;
        self
    }

    /// Goes through this proxy. Those of the environment are never used.
    #[must_use]
    pub fn with_proxy(mut self, url: impl Into<String>) -> Self {
        self.http.proxy = Some(SecretString::from(url.into()));
        self
    }

    /// Says who is paid for the answers, where it is not the host's name that should be on the bill (`openai` for OpenAI's
    /// own, `azure` for Azure).
    #[must_use]
    pub fn with_payee(mut self, payee: Payee) -> Self {
        self.payee = Some(payee);
        self
    }

    /// Adds a header to every request. Its value is treated as a secret.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), SecretString::from(value.into())));
        self
    }

    /// Allows to send a key over a connection that is not encrypted, to a host that is not this machine.
    #[must_use]
    pub const fn with_plain_http(mut self) -> Self {
        self.plain_http = true;
        self
    }

    /// Builds the embedder. Connects to nothing.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) names what is missing or wrong: no key for OpenAI's own endpoint, no space for a
    /// model that is not OpenAI's, a URL that cannot be used, dimensions that the model does not have, a key that would
    /// be sent unencrypted.
    pub fn build(self) -> Result<OpenAi> {
        let url = self.url()?;
        let default_endpoint = self.base_url.is_none() && self.azure.is_none();
        if default_endpoint && self.key.is_none() {
            let message = "OpenAI's endpoint needs a key: set OPENAI_API_KEY and use `from_env`, or `with_api_key`";
            return Err(config(message));
        }
        let has_secret =
            self.key.is_some() || self.organization.is_some() || self.project.is_some() || !self.headers.is_empty();
        // Through a proxy, this machine is another one.
        let stays_here = is_loopback(&url) && self.http.proxy.is_none();
        if has_secret && url.scheme() == "http" && !stays_here && !self.plain_http {
            let message = "a key would go unencrypted to another machine: use https, or allow it by `with_plain_http`";
            return Err(config(message));
        }
        if let Some(key) = &self.key {
            check_key(key.expose_secret())?;
        }
        let headers = self.request_headers()?;
        let space = self.checked_space()?;
        self.check_prompts(&space)?;
        let limits = self.checked_limits(&space)?;
        let vendor = match &self.azure {
            Some(_) => "azure.ai.openai",
            None => "openai",
        };
        let model = match &self.azure {
            Some(azure) if azure.api_version.is_some() => None,
            Some(azure) => Some(azure.deployment.clone()),
            None => Some(self.model.clone()),
        };
        let http = Http::new(&self.http, url.scheme() == "https" || self.http.proxy.is_some())?;
        let prefix = if self.azure.is_some() { "azure" } else { "openai" };
        Ok(OpenAi(Arc::new(Inner {
            name: format!("{prefix}/{}", self.model),
            vendor,
            payee: self.payee.clone().unwrap_or_else(|| self.payee_at(&url)),
            url,
            headers,
            model,
            dimensions: self.dimensions,
            encoding: self.encoding,
            space,
            limits,
            http,
        })))
    }

    /// Who bills at this address: nobody is taken for OpenAI who is not.
    fn payee_at(&self, url: &Url) -> Payee {
        let provider = match (&self.azure, url.host_str()) {
            (Some(_), _) => "azure",
            (None, Some("api.openai.com") | None) => "openai",
            (None, Some(host)) => host,
        };
        Payee::new(provider, self.model.as_str(), Tier::Standard)
    }

    /// The address that requests go to.
    fn url(&self) -> Result<Url> {
        let base = match &self.azure {
            Some(azure) => &azure.endpoint,
            None => self.base_url.as_deref().unwrap_or(BASE_URL),
        };
        // The address itself is not quoted: it may hold a password.
        let unusable = |what: &str| config(format!("the base URL {what}: it is like {BASE_URL}"));
        let mut url = Url::parse(base.trim()).map_err(|_| unusable("cannot be read"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(unusable("begins with neither http:// nor https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(unusable("holds a user or password, which belong into `with_header`"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(unusable("has a query or fragment"));
        }
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

    fn request_headers(&self) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let mut add = |name: &str, value: &SecretString| -> Result<()> {
            let (name, value) = headers::header(name, value)?;
            headers.insert(name, value);
            Ok(())
        };
        match &self.key {
            Some(key) if self.azure.is_some() => add("api-key", key)?,
            Some(key) => {
                // Checked alone, so that an empty one is not hidden behind `Bearer`.
                headers::header("authorization", key)?;
                add("authorization", &SecretString::from(format!("Bearer {}", key.expose_secret())))?;
            }
            None => {}
        }
        if let Some(organization) = &self.organization {
            add("openai-organization", organization)?;
        }
        if let Some(project) = &self.project {
            add("openai-project", project)?;
        }
        // The caller's own win over all of these.
        for (name, value) in &self.headers {
            add(name, value)?;
        }
        Ok(headers)
    }

    /// Refuses a model that is known to want prompts which nobody gives: found out later, the documents would be embedded
    /// already, in a space of their own.
    fn check_prompts(&self, space: &Space) -> Result<()> {
        let prompts = space.prompts();
        if self.unprompted || (prompts.applied_by == PromptsBy::Server && *prompts != Prompts::default()) {
            return Ok(());
        }
        for kind in [InputKind::Document, InputKind::Query] {
            let wanted = [space.model(), &self.model].into_iter().find_map(|name| models::wants_prompt(name, kind));
            let Some(usual) = wanted.filter(|_| prompts.of(kind).is_none()) else { continue };
            let message = format!(
                "{} was trained with a prompt before each {kind}, usually {:?}: give the prompts by `with_prompts`, with \
                 `Prompts::by_server` if the server puts them there, or say `without_prompts` if the texts have them",
                space.model(),
                usual.of(kind).unwrap_or_default()
            );
            return Err(config(message));
        }
        Ok(())
    }

    /// What a request may hold: what was said, else what is known of OpenAI's models.
    fn checked_limits(&self, space: &Space) -> Result<Limits> {
        let mut limits = self.limits.clone().unwrap_or_default();
        if models::of(&self.model).is_some() {
            let own = models::limits();
            limits.texts = limits.texts.or(own.texts);
            limits.tokens_per_text = limits.tokens_per_text.or(own.tokens_per_text);
            limits.tokens_per_call = limits.tokens_per_call.or(own.tokens_per_call);
            limits.in_flight = limits.in_flight.or(own.in_flight);
            if matches!(limits.tokens, TokenCount::Unknown) {
                limits.tokens = TokenCount::Exact(Arc::new(Cl100k::new(space.prompts().clone())));
            }
        } else if self.limits.is_none() {
            limits = models::unknown_limits();
        }
        if limits.tokens_per_text.is_some() && !matches!(limits.tokens, TokenCount::Exact(_)) {
            let message = "a limit of tokens a text cannot be kept without counting them: give a counter \
                           (`Limits::with_tokens(TokenCount::Exact(..))`), or leave the limit to the server";
            return Err(config(message));
        }
        Ok(limits)
    }

    /// What the vectors are.
    fn checked_space(&self) -> Result<Space> {
        let space = match (&self.space, models::of(&self.model)) {
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
                        let message = format!("{other} dimensions of {}: it has 1 to {}", model.name, model.dimensions);
                        return Err(config(message));
                    }
                };
                Space::builder(model.name, dimensions).with_normalization(Normalization::L2).build()?
            }
            (None, None) => {
                let message = format!(
                    "{:?} is not one of OpenAI's embedding models: check the name, or say what its vectors are with \
                     `OpenAi::builder(..).with_env().with_space(..)`",
                    self.model
                );
                return Err(config(message));
            }
        };
        if let Some(asked) = self.dimensions.filter(|&asked| asked != space.dimensions()) {
            return Err(config(format!("{asked} dimensions are asked for, and the space has {}", space.dimensions())));
        }
        match &self.prompts {
            None => Ok(space),
            Some(prompts) => {
                let own = space.prompts();
                if (own.document.is_some() || own.query.is_some()) && own != prompts {
                    return Err(config("the space has other prompts than those of `with_prompts`"));
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

/// Refuses what is no key: a line break from a file, quotes from a shell.
fn check_key(key: &str) -> Result<()> {
    let what = match key {
        "" => "is empty",
        _ if key.trim() != key => "begins or ends with white space: trim it",
        _ if key.contains(['"', '\'']) => "has quotes in it: take them off",
        _ if !key.bytes().all(|byte| byte.is_ascii_graphic()) => "has characters that no key has",
        _ => return Ok(()),
    };
    Err(config(format!("the key (OPENAI_API_KEY, `with_api_key`) {what}")))
}

fn config(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}
