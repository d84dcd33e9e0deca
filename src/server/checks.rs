//! Checks a request by the model that is served: names, dimensions, token ids.

use axum::http::StatusCode;

use super::{
    dialect::Dialect,
    inner::Inner,
    model::ServedModel,
    refusal::Refusal,
    request::{BadBody, EmbedRequest},
};
use crate::{BadText, BadTextReason, ErrorKind, Normalization, Space};

/// The most token ids of one request.
const MAX_IDS: usize = 1 << 20;

/// Checks what a request says about the model, and returns the most components of a row.
pub(super) fn check_request(model: &ServedModel, request: &EmbedRequest) -> Result<usize, Refusal> {
    let spaces = model.embedder.spaces();
    let wanted = request.options.space;
    if let Some(wanted) = wanted.filter(|wanted| spaces.iter().all(|space| space.id() != *wanted)) {
        let have: Vec<String> = spaces.iter().map(Space::to_string).collect();
        let message = format!("the request wants space {wanted}, and this service has {}", have.join(", "));
        return Err(Refusal::new(StatusCode::CONFLICT, ErrorKind::SpaceMismatch, message));
    }
    if let Some(asked) = request.model.as_deref().filter(|asked| !model.is_called(asked)) {
        return Err(unknown_model(model, asked));
    }
    if request.texts.is_empty() && request.dialect != Dialect::Native {
        let (field, message) = match request.dialect {
            Dialect::OpenAi => ("input", "`input` is an empty list"),
            _ => ("inputs", "`inputs` is an empty list"),
        };
        let refusal = Refusal::new(StatusCode::BAD_REQUEST, ErrorKind::InvalidInput, message);
        return Err(refusal.with_param(field).with_code("empty"));
    }
    let possible = || spaces.iter().filter(|space| wanted.is_none_or(|wanted| wanted == space.id()));
    if let Some(dimensions) = request.dimensions
        && !possible().any(|space| space.dimensions() as u64 == dimensions)
    {
        let have: Vec<String> = spaces.iter().map(|space| space.dimensions().to_string()).collect();
        let message = format!(
            "is {dimensions}, but this model has {}: leave it out, other widths are other spaces",
            have.join(" or ")
        );
        return Err(Refusal::of_body(BadBody::of("dimensions", message)));
    }
    check_normalize(request, possible())?;
    Ok(possible().map(Space::dimensions).max().unwrap_or_default())
}

/// Refuses vectors that are scaled in another way than those of the space: they would lie in another one.
fn check_normalize<'s>(request: &EmbedRequest, mut possible: impl Iterator<Item = &'s Space>) -> Result<(), Refusal> {
    let Some(normalize) = request.normalize else { return Ok(()) };
    let is_normalized = |space: &Space| space.normalization() == Normalization::L2;
    if possible.any(|space| is_normalized(space) == normalize) {
        return Ok(());
    }
    let message = match normalize {
        false => "is false, but the vectors of this space have length 1: leave it out",
        true => "is true, but the vectors of this space are not scaled: leave it out, and scale them yourself",
    };
    Err(Refusal::of_body(BadBody::of("normalize", message)))
}

pub(super) fn unknown_model(model: &ServedModel, asked: &str) -> Refusal {
    let asked: String = asked.chars().take(64).collect();
    let message =
        format!("the model {asked:?} is not served here: it is {:?} (an operator adds names by --alias)", model.name());
    Refusal::new(StatusCode::NOT_FOUND, ErrorKind::Config, message).with_param("model").with_code("model_not_found")
}

/// Turns token ids into texts, if the operator has named their vocabulary.
pub(super) async fn decoded_ids(
    server: &Inner,
    model: &ServedModel,
    mut request: EmbedRequest,
) -> Result<EmbedRequest, Refusal> {
    if request.ids.is_empty() {
        return Ok(request);
    }
    let ids = std::mem::take(&mut request.ids);
    let field = if request.dialect == Dialect::OpenAi { "input" } else { "inputs" };
    // Without a vocabulary, ids are refused when they are read.
    let Some(vocabulary) = server.token_ids(model).cloned() else {
        return Err(Refusal::of_body(BadBody::of(field, "has token ids")));
    };
    let count: usize = ids.iter().map(Vec::len).sum();
    if count > MAX_IDS {
        let message = format!("has {count} token ids, and at most {MAX_IDS} of one request are decoded: send less");
        let bad = BadBody { is_too_much: true, ..BadBody::of(field, message) };
        return Err(Refusal::of_body(bad));
    }
    let turn = server.tokenizing.clone().acquire_owned().await;
    let decode = move || -> Result<Vec<String>, (usize, crate::Error)> {
        let decode = |(index, ids): (usize, &Vec<u32>)| vocabulary.decode(ids, false).map_err(|error| (index, error));
        // The turn is over when the work is, also if the client has left.
        let _turn = turn;
        ids.iter().enumerate().map(decode).collect()
    };
    let decoded = tokio::task::spawn_blocking(decode).await;
    let failed = || Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorKind::Inference, "decoding token ids failed");
    let texts = decoded.map_err(|_| failed())?.map_err(|(index, error)| {
        let mut refusal = Refusal::of_error(&error).with_param(field);
        // It names an id.
        refusal.message = error.message().to_owned();
        refusal.bad_texts = vec![BadText::new(index, BadTextReason::Rejected)];
        refusal
    })?;
    texts.iter().for_each(|text| request.texts.push_with(|buffer| buffer.push_str(text)));
    Ok(request)
}
