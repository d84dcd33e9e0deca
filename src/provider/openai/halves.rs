//! Sends a batch in halves if the server finds the whole too large: [`embed`].
//!
//! The limits are kept before a request is sent. But a server may count in its own way, or have changed its limits. Then
//! it refuses a request that no single text is to blame for.

use std::ops::Range;

use crate::{BadText, BadTextReason, Batch, Embeddings, Error, Result, RowCollector};

/// OpenAI's code of a request whose texts together are too large.
const TOO_LARGE: &str = "max_tokens_per_request";

/// Embeds a batch by `send`, which makes one request. Sends halves of what was refused as too large, down to single
/// texts.
///
/// After another failure no request is sent. Its error has the rows and the cost of the parts before it.
pub(super) async fn embed<'a, F>(batch: &Batch<'a>, send: impl Fn(Batch<'a>) -> F) -> Result<Embeddings>
where
    F: Future<Output = Result<Embeddings>>,
{
    let mut refusals = match send(*batch).await {
        Err(error) if batch.len() > 1 && is_too_large(&error) => error.charges().clone(),
        result => return result,
    };
    let mut rows = RowCollector::new(batch.len());
    let mut waiting = Vec::from(halves(0..batch.len()));
    let mut status = None;
    while let Some(part) = waiting.pop() {
        let error = match send(batch.part(part.clone())).await {
            Ok(embeddings) => {
                status = embeddings.rate_limit_status().or(status);
                rows.put(&embeddings, |row| part.start + row).err()
            }
            Err(error) if !is_too_large(&error) => Some(error.map_indices(|index| [part.start + index])),
            // Nothing is left to halve: this text is the cause.
            Err(error) if part.len() == 1 => {
                Some(error.with_bad_texts(vec![BadText::new(part.start, BadTextReason::Rejected)]))
            }
            Err(error) => {
                refusals += error.charges();
                waiting.extend(halves(part));
                None
            }
        };
        if let Some(error) = error {
            return Err(rows.fail(error).with_charges(&refusals));
        }
    }
    let rows = rows.finish().map_err(|error| error.with_charges(&refusals))?.with_charges(&refusals);
    Ok(status.into_iter().fold(rows, Embeddings::with_rate_limit_status))
}

/// Whether the server refused a request because its texts together are too large.
fn is_too_large(error: &Error) -> bool {
    error.status() == Some(400) && error.provider_code() == Some(TOO_LARGE)
}

/// Returns the halves of a range, the one that comes last first.
fn halves(Range { start, end }: Range<usize>) -> [Range<usize>; 2] {
    let middle = start + (end - start) / 2;
    [middle..end, start..middle]
}
