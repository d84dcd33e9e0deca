//! Checks the post-processor of a `tokenizer.json`. The crate `tokenizers` panics on what is refused here.

use serde_json::{Map, Value};

/// Checks all templates. An error is the end of a sentence that begins with the file's path.
pub(super) fn check(tokenizer: &Map<String, Value>) -> Result<(), String> {
    let mut templates = 0;
    tokenizer.get("post_processor").map_or(Ok(()), |processor| check_processor(processor, &mut templates))
}

/// Checks a post-processor with its parts, and counts the templates. The crate looks at the fields and not at the type.
fn check_processor(processor: &Value, templates: &mut usize) -> Result<(), String> {
    let list = |field: &str| processor.get(field).and_then(Value::as_array).into_iter().flatten();
    list("processors").try_for_each(|part| check_processor(part, templates))?;
    if processor.get("single").is_none() {
        return Ok(());
    }
    *templates += 1;
    if *templates > 1 {
        return Err("has two templates in its post-processor: join them into one".into());
    }
    list("single").try_for_each(|piece| check_piece(piece, processor.get("special_tokens")))
}

/// Checks a piece of the template for a single text.
fn check_piece(piece: &Value, declared: Option<&Value>) -> Result<(), String> {
    // The fields of a piece may stand in an object or in a list.
    let id = |kind: &str| piece.get(kind).and_then(|piece| piece.get("id").or_else(|| piece.get(0))?.as_str());
    if let Some(token) = id("SpecialToken").filter(|token| declared.and_then(|all| all.get(token)).is_none()) {
        return Err(format!(
            "names the token {token} in its post-processor's template, but special_tokens there lacks it: add it, or \
             take it out of the template"
        ));
    }
    if id("Sequence") == Some("B") {
        return Err("has a second text (B) in its post-processor's template for a single text: take it out".into());
    }
    Ok(())
}
