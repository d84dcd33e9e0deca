//! Makes figures for metrics of what the local engine has done.

use super::figure::Figure;
use crate::provider::OnnxStats;

/// Returns the figures of the engine.
pub(super) fn figures(stats: &OnnxStats) -> Vec<Figure> {
    let seconds = |time: std::time::Duration| time.as_secs_f64();
    vec![
        Figure::new("batches", "Batches that the engine ran", stats.batches as f64),
        Figure::new("texts", "Texts that the engine embedded", stats.texts as f64),
        Figure::new("tokens", "Tokens that the engine embedded", stats.tokens as f64),
        Figure::new("padded_tokens", "Tokens that the engine ran, with padding", stats.padded_tokens as f64),
        Figure::new("tokenizing_seconds", "Time in the tokenizer, of all threads together", seconds(stats.tokenizing)),
        Figure::new("inference_seconds", "Time in the model, of all threads together", seconds(stats.inference)),
    ]
}
