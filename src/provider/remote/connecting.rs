//! Learns from a service what a program did not say: its dialect, its space and its limits: [`learn`].

use reqwest::{Url, header::HeaderMap};

use super::{
    dialect::RemoteDialect,
    info::{self, Info, ServedModel},
    probe,
    service_url::route,
    tei,
};
use crate::{Error, ErrorKind, Limits, Result, Space, http::Http};

/// The means to ask, and the settings that the program gave.
pub(super) struct Given<'g> {
    pub(super) http: &'g Http,
    pub(super) headers: &'g HeaderMap,
    pub(super) dialect: Option<RemoteDialect>,
    pub(super) space: Option<&'g Space>,
}

/// The settings that the program gave, completed by those that the service told.
pub(super) struct Learned {
    /// The place of the endpoint that answered.
    pub(super) place: usize,
    pub(super) dialect: RemoteDialect,
    pub(super) space: Space,
    pub(super) limits: Option<Limits>,
}

/// Asks one endpoint after the other until one tells enough. The error is that of the first one.
pub(super) async fn learn(given: &Given<'_>, bases: &[Url]) -> Result<Learned> {
    let mut first = None;
    for (place, base) in bases.iter().enumerate() {
        match learn_at(given, base).await {
            Ok((dialect, space, limits)) => return Ok(Learned { place, dialect, space, limits }),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| Error::new(ErrorKind::Config, "there is no endpoint to ask")))
}

async fn learn_at(given: &Given<'_>, base: &Url) -> Result<(RemoteDialect, Space, Option<Limits>)> {
    let info = info::ask(given.http, &route(base, "info"), given.headers, None).await?;
    let origin = base.origin().ascii_serialization();
    let dialect = match (given.dialect, &info) {
        (Some(dialect), _) => dialect,
        (None, Some(Info { own: Some(_), .. })) => RemoteDialect::Docvector,
        (None, Some(_)) => RemoteDialect::TextEmbeddingsInference,
        (None, None) => nameless_dialect(given, &origin)?,
    };
    let space = match (given.space, &info) {
        // Whether it is that of the service is seen at the first contact, right after this.
        (Some(space), _) => space.clone(),
        (None, Some(Info { own: Some(own), .. })) => own.space()?,
        (None, Some(Info { model: Some(model), .. })) if dialect == RemoteDialect::TextEmbeddingsInference => {
            space_of(given, base, model).await?
        }
        (None, _) => {
            let message = format!("{origin} does not say which space its vectors lie in: give it by `with_space`");
            return Err(Error::new(ErrorKind::Config, message));
        }
    };
    Ok((dialect, space, info.map(|info| info.limits)))
}

/// Returns the dialect of a server that does not say what it is.
fn nameless_dialect(given: &Given<'_>, origin: &str) -> Result<RemoteDialect> {
    #[cfg(feature = "openai")]
    if given.space.is_some() {
        return Ok(RemoteDialect::OpenAi);
    }
    let openai = match (cfg!(feature = "openai"), given.space) {
        (true, _) => "if it speaks OpenAI's API, give the space by `with_space`",
        (false, _) => "if it speaks OpenAI's API, turn on the feature `openai`",
    };
    let message = format!(
        "{origin} does not say what it is (GET /info): check the URL, or give the dialect by `with_dialect`; {openai}"
    );
    Err(Error::new(ErrorKind::Config, message))
}

/// Makes the space of a model of text-embeddings-inference, which says all but the width.
async fn space_of(given: &Given<'_>, base: &Url, model: &ServedModel) -> Result<Space> {
    if !model.is_embedder || (model.pooling.is_some() && model.pooling().is_none()) {
        let message = "the model of this service makes no dense vectors, or pools them in a way that is not known: check \
                       the URL, or give the space by `with_space`";
        return Err(Error::new(ErrorKind::Config, message));
    }
    let width = tei::width_of(probe::TEXT, given.http, &route(base, "embed"), given.headers).await;
    tei::space_of(model, width.map_err(|error| error.with_bad_texts(Vec::new()))?)
}
