//! Turns texts into token ids, no more than the model takes.
//!
//! The truncation and padding in `tokenizer.json` are removed: an export used them, and the model may take another
//! length. `truncation.rs` truncates texts: special tokens stay, only the tokens of the text itself are dropped.

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use serde_json::{Value, value::RawValue};
use tokenizers::Tokenizer;

use super::{
    json_file::{JsonFile, config},
    model_folder::ModelFolder,
    post_processor,
    stages::{Tokenize, TokenizedText, TooManyTokens},
    truncation::{Fit, SplitPoints},
};
use crate::{CountTokens, Error, ErrorKind, InputKind, Prompts, Result, Truncation};

/// A tokenizer, and the tokens that the model needs around a text.
pub(super) struct ModelTokenizer {
    tokenizer: Tokenizer,
    /// Special tokens before and after a text.
    before: Vec<u32>,
    after: Vec<u32>,
    pub(super) pad: u32,
    /// The most tokens of a text, special ones included; `usize::MAX` if there is no limit.
    pub(super) max: usize,
    left: bool,
    prompts: Prompts,
    /// The number of tokens of each kind's prompt, with the special ones before it.
    prompt_tokens: [usize; 2],
    split_points: SplitPoints,
    pub(super) hash: blake3::Hash,
}

impl ModelTokenizer {
    /// Reads the tokenizer of a folder, whose ids must be below `vocabulary`.
    pub(super) fn read(folder: &ModelFolder, vocabulary: Option<usize>) -> Result<Self> {
        let path = folder.transformer.join("tokenizer.json");
        // What is known to make the library panic is refused before, with a better reason.
        catch_unwind(AssertUnwindSafe(|| Self::read_file(folder, vocabulary, &path))).unwrap_or_else(|_| {
            Err(config(
                &path,
                "makes the tokenizer's library panic: a part of it does not fit the others; save it again",
            ))
        })
    }

    fn read_file(folder: &ModelFolder, vocabulary: Option<usize>, path: &Path) -> Result<Self> {
        let wrong = |message: String| config(path, &message);
        let bytes = fs::read(path).map_err(|error| wrong("cannot be read".into()).with_source(error))?;
        let mut json: Value = serde_json::from_slice(&bytes).map_err(|error| {
            wrong(format!("is not JSON: line {}, column {}", error.line(), error.column())).with_source(error)
        })?;
        let fields = json.as_object_mut().ok_or_else(|| wrong("is not a tokenizer".into()))?;
        fields.insert("truncation".into(), Value::Null);
        fields.insert("padding".into(), Value::Null);
        if folder.lower_case {
            lower_case(fields);
        }
        let split_points = SplitPoints::of(fields);
        check_against_config(folder, fields, path)?;
        post_processor::check(fields).map_err(wrong)?;
        let tokenizer = Tokenizer::from_bytes(json.to_string().as_bytes())
            .map_err(|error| wrong("is not a tokenizer that is known here".into()).with_source(error))?;

        let fits = |what: &str, id: u32| match vocabulary.filter(|&rows| id as usize >= rows) {
            None => Ok(()),
            Some(0) => Err("does not fit the model, which has no vectors for ids".to_owned()),
            Some(rows) => Err(format!(
                "does not fit the model: {what} is {id}, but the model has vectors for ids up to {}",
                rows - 1
            )),
        };
        let largest = tokenizer.get_vocab(true).values().copied().max();
        let largest = largest.ok_or_else(|| wrong("has no tokens".into()))?;
        fits("its largest id", largest).map_err(wrong)?;
        let (before, after) = around(&tokenizer).map_err(wrong)?;
        check_special_tokens(folder, &tokenizer, &before, &after, path)?;
        let special = before.iter().chain(&after);
        special.copied().try_for_each(|id| fits("an id that its post-processor adds", id)).map_err(wrong)?;
        if folder.max_tokens.is_some_and(|max| max <= before.len() + after.len()) {
            let message = format!("adds {} special tokens, which leave no room for a text", before.len() + after.len());
            return Err(wrong(message));
        }
        let pad = match folder.config.size("pad_token_id")? {
            Some(pad) => {
                let pad = pad as u32;
                fits("pad_token_id", pad).map_err(|message| folder.config.error(message))?;
                pad
            }
            None => tokenizer.token_to_id("[PAD]").or_else(|| tokenizer.token_to_id("<pad>")).unwrap_or(0),
        };
        let mut tokens = Self {
            tokenizer,
            before,
            after,
            pad,
            max: folder.max_tokens.unwrap_or(usize::MAX),
            left: folder.truncate_left,
            prompts: folder.prompts.clone(),
            prompt_tokens: [0; 2],
            split_points,
            hash: fingerprint(&bytes).ok_or_else(|| wrong("is not a tokenizer".into()))?,
        };
        tokens.count_prompts()?;
        Ok(tokens)
    }

    /// Counts the tokens of the prompts. A prompt that leaves no room for a text is an error.
    fn count_prompts(&mut self) -> Result<()> {
        for kind in [InputKind::Document, InputKind::Query] {
            let prompt = self.prompts.of(kind).unwrap_or_default();
            let count = if prompt.is_empty() { 0 } else { self.before.len() + self.plain(prompt)?.len() };
            if count >= self.max.saturating_sub(self.after.len()) {
                let message = format!(
                    "the prompt for a {kind} has {count} tokens, and the model takes {}: no room for a text is left",
                    self.max
                );
                return Err(Error::new(ErrorKind::Config, message));
            }
            self.prompt_tokens[kind as usize] = count;
        }
        Ok(())
    }

    /// Returns the number of special tokens around a text.
    fn special(&self) -> usize {
        self.before.len() + self.after.len()
    }

    /// Tokenizes a text alone, without special tokens.
    fn plain(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, false);
        let encoding = encoding
            .map_err(|error| Error::new(ErrorKind::Inference, "the tokenizer failed on a text").with_source(error))?;
        Ok(encoding.get_ids().to_vec())
    }
}

impl std::fmt::Debug for ModelTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelTokenizer")
            .field("max", &self.max)
            .field("split_points", &self.split_points)
            .finish_non_exhaustive()
    }
}

impl Tokenize for ModelTokenizer {
    fn tokenize(
        &self,
        kind: InputKind,
        text: &str,
        truncation: Truncation,
    ) -> Result<Result<TokenizedText, TooManyTokens>> {
        let text = &*self.prompts.before(kind, text);
        let special = self.special();
        let room = self.max.saturating_sub(special);
        let (own, truncated) =
            match self.split_points.fit(text, room, self.left, truncation, |text| self.plain(text))? {
                Fit::Whole(own) => (own, false),
                Fit::Truncated(own) => (own, true),
                Fit::TooMany(own) => return Ok(Err(TooManyTokens(own + special))),
            };
        let mut ids = Vec::with_capacity(own.len() + special);
        ids.extend_from_slice(&self.before);
        ids.extend_from_slice(&own);
        ids.extend_from_slice(&self.after);
        Ok(Ok(TokenizedText { ids, truncated }))
    }

    fn unpooled(&self, kind: InputKind) -> usize {
        self.prompt_tokens[kind as usize]
    }

    fn limit(&self) -> usize {
        self.max
    }
}

impl CountTokens for ModelTokenizer {
    fn count(&self, kind: InputKind, text: &str) -> usize {
        // A text that cannot be tokenized is refused when it is embedded.
        let own = self.plain(&self.prompts.before(kind, text)).map_or(usize::MAX, |ids| ids.len());
        own.saturating_add(self.special())
    }

    fn at_most(&self, _: InputKind, _: &str) -> usize {
        usize::MAX
    }

    fn count_to(&self, kind: InputKind, text: &str, limit: usize) -> usize {
        let special = self.special();
        let own =
            self.split_points
                .beginning(&self.prompts.before(kind, text), limit.saturating_sub(special), |text| self.plain(text));
        // A text that cannot be tokenized is refused when it is embedded.
        own.map_or(usize::MAX, |(ids, _)| ids.len().saturating_add(special))
    }
}

/// Makes a tokenizer lower-case its texts, unless it does so already. sentence-transformers does the same if a model
/// asks for it.
fn lower_case(tokenizer: &mut serde_json::Map<String, Value>) {
    fn lowers(normalizer: &Value) -> bool {
        let parts = normalizer.get("normalizers").and_then(Value::as_array);
        normalizer.get("type").is_some_and(|kind| kind == "Lowercase")
            || normalizer.get("lowercase").is_some_and(|lowercase| lowercase == true)
            || parts.is_some_and(|parts| parts.iter().any(lowers))
    }
    let lowercase = serde_json::json!({"type": "Lowercase"});
    let own = tokenizer.get("normalizer").filter(|own| !own.is_null()).cloned();
    let normalizer = match own {
        None => lowercase,
        Some(own) if lowers(&own) => own,
        Some(own) => serde_json::json!({"type": "Sequence", "normalizers": [lowercase, own]}),
    };
    tokenizer.insert("normalizer".into(), normalizer);
}

/// Finds the special tokens that the tokenizer puts around a text, by tokenizing short words.
fn around(tokenizer: &Tokenizer) -> Result<(Vec<u32>, Vec<u32>), String> {
    let ids =
        |text: &str, special: bool| tokenizer.encode_fast(text, special).map(|encoding| encoding.get_ids().to_vec());
    if tokenizer.encode_fast("a", true).is_ok_and(|encoding| encoding.get_type_ids().iter().any(|&kind| kind != 0)) {
        return Err("gives a single text a token type other than 0".into());
    }
    for probe in ["a", "the", "1"] {
        let (Ok(plain), Ok(whole)) = (ids(probe, false), ids(probe, true)) else { continue };
        if plain.is_empty() {
            continue;
        }
        if let Some(at) = whole.windows(plain.len()).position(|part| part == plain) {
            return Ok((whole[..at].to_vec(), whole[at + plain.len()..].to_vec()));
        }
    }
    Err("gives no tokens for the simplest words".into())
}

/// The classes of tokenizers that sentence-transformers builds again from the options of `tokenizer_config.json`,
/// against `tokenizer.json`.
const REBUILT: [&str; 6] = [
    "BertTokenizer",
    "BertTokenizerFast",
    "DistilBertTokenizer",
    "DistilBertTokenizerFast",
    "MPNetTokenizer",
    "MPNetTokenizerFast",
];

fn is_rebuilt(config: &JsonFile) -> Result<bool> {
    Ok(config.text("tokenizer_class")?.is_some_and(|class| REBUILT.contains(&class)))
}

/// Refuses a normalizer that differs between `tokenizer.json` and `tokenizer_config.json`, if sentence-transformers
/// would use the latter. The wrong one of the two gives wrong vectors.
fn check_against_config(folder: &ModelFolder, tokenizer: &serde_json::Map<String, Value>, path: &Path) -> Result<()> {
    let Some(config) = &folder.tokenizer_config else { return Ok(()) };
    let normalizer = tokenizer.get("normalizer").filter(|normalizer| normalizer["type"] == "BertNormalizer");
    let (true, Some(normalizer)) = (is_rebuilt(config)?, normalizer) else { return Ok(()) };
    for (option, of_config, of_tokenizer) in [
        ("do_lower_case", config.flag("do_lower_case")?.unwrap_or(true), normalizer["lowercase"] == true),
        (
            "tokenize_chinese_chars",
            config.flag("tokenize_chinese_chars")?.unwrap_or(true),
            normalizer["handle_chinese_chars"] == true,
        ),
    ] {
        if of_config != of_tokenizer {
            return Err(config.error(format!(
                "says {option} is {of_config}, {} says {of_tokenizer}: make them agree",
                path.display()
            )));
        }
    }
    let strips = (config.flag("strip_accents")?, normalizer["strip_accents"].as_bool());
    if strips.0 != strips.1 {
        let message =
            format!("says strip_accents is {:?}, {} says {:?}: make them agree", strips.0, path.display(), strips.1);
        return Err(config.error(message));
    }
    Ok(())
}

/// Refuses special tokens that differ between the two files, for the same reason.
fn check_special_tokens(
    folder: &ModelFolder,
    tokenizer: &Tokenizer,
    before: &[u32],
    after: &[u32],
    path: &Path,
) -> Result<()> {
    let Some(config) = &folder.tokenizer_config else { return Ok(()) };
    if !is_rebuilt(config)? {
        return Ok(());
    }
    for (field, used) in [("cls_token", before.first()), ("sep_token", after.first())] {
        let Some(token) = config.token(field)? else { continue };
        if let Some(&used) = used
            && tokenizer.token_to_id(token) != Some(used)
        {
            let message =
                format!("says {field} is {token}, {} puts the token {used} there: make them agree", path.display());
            return Err(config.error(message));
        }
    }
    Ok(())
}

/// Hashes the file's fields but for truncation and padding, which are ignored. The fields are hashed as they are
/// written, because another program may write the same JSON in another way.
fn fingerprint(bytes: &[u8]) -> Option<blake3::Hash> {
    let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(bytes).ok()?;
    let mut hasher = blake3::Hasher::new();
    for (name, value) in fields.iter().filter(|(name, _)| !matches!(name.as_str(), "truncation" | "padding")) {
        for part in [name.as_str(), value.get()] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
    }
    Some(hasher.finalize())
}
