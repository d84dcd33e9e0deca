//! Makes the texts that a provider sends of those that it gets: [`inputs_of`] checks, truncates and adds prompts.

use std::borrow::Cow;

use crate::{BadText, BadTextReason, Batch, Error, Limits, Prompts, Result, Space, TokenCount, Truncation, planner};

/// Checks a batch by these limits and returns its texts as a request has them; also the indices of the texts that it
/// truncated. `prompts` are those that the client puts before texts, if it puts any.
pub(super) async fn inputs_of<'t>(
    batch: &Batch<'t>,
    space: &Space,
    limits: &Limits,
    prompts: Option<&Prompts>,
) -> Result<(Vec<Cow<'t, str>>, Vec<usize>)> {
    let mut counting = planner::check(batch, std::slice::from_ref(space), limits).await?;
    let mut truncated = Vec::new();
    let mut inputs = Vec::with_capacity(batch.len());
    for (index, &text) in batch.texts().iter().enumerate() {
        let mut text = text;
        if batch.truncation() == Truncation::Truncate && counting.is_over(batch, index) {
            text = truncate(batch, index, limits)?;
            truncated.push(index);
            planner::yield_once().await;
        }
        inputs.push(prompts.map_or(Cow::Borrowed(text), |prompts| prompts.before_by_client(batch.kind(), text)));
    }
    Ok((inputs, truncated))
}

/// Returns the beginning of a text that is too long.
fn truncate<'t>(batch: &Batch<'t>, index: usize, limits: &Limits) -> Result<&'t str> {
    let text = batch.texts()[index];
    let (TokenCount::Exact(counter), Some(limit)) = (&limits.tokens, limits.tokens_of_one_text()) else {
        return Ok(text);
    };
    match counter.truncate(batch.kind(), text, limit) {
        // Not one character fits: the prompt alone is too long.
        "" => {
            let tokens = counter.count_to(batch.kind(), text, limit);
            Err(Error::invalid_texts(vec![BadText::new(index, BadTextReason::TooLong { tokens, limit })]))
        }
        beginning => Ok(beginning),
    }
}
