//! Turns texts into token ids, no more than the model takes.
//!
//! `truncation.rs` truncates texts: special tokens stay, only the tokens of the text itself are dropped.

use std::{collections::BTreeMap, ops::Range, path::Path, sync::Arc};

use serde_json::{Value, value::RawValue};

use super::{
    json_file::{JsonFile, config},
    model_folder::ModelFolder,
    stages::{ReadSoFar, Stretch, Tokenize, TokenizedText, TooManyTokens},
    truncation::{Fit, fit},
};
use crate::{
    Error, ErrorKind, InputKind, Result, TokenizerCounter, Truncation,
    tokenizer::{Reading, TextTokenizer, TokenizerJson},
};

/// A tokenizer, and what the model wants of it.
pub(super) struct ModelTokenizer {
    /// Counts the tokens of a text with its prompt, and holds both.
    pub(super) counter: Arc<TokenizerCounter>,
    pub(super) pad: u32,
    /// The most tokens of a text, special ones included; `usize::MAX` if there is no limit.
    pub(super) max: usize,
    left: bool,
    /// The number of tokens of each kind's prompt, with the special ones before it.
    prompt_tokens: [usize; 2],
    pub(super) hash: blake3::Hash,
}

impl ModelTokenizer {
    /// Reads the tokenizer of a folder, whose ids must be below `vocabulary`.
    pub(super) fn read(folder: &ModelFolder, vocabulary: Option<usize>) -> Result<Self> {
        let path = folder.transformer.join("tokenizer.json");
        let wrong = |message: String| config(&path, &message);
        let TokenizerJson { bytes, mut fields } = TokenizerJson::read(&path)?;
        if folder.lower_case {
            lower_case(&mut fields);
        }
        check_against_config(folder, &fields, &path)?;
        let texts = TextTokenizer::new(fields, &path)?;
        let tokenizer = &texts.tokenizer;

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
        let special = texts.before.iter().chain(&texts.after);
        special.copied().try_for_each(|id| fits("an id that its post-processor adds", id)).map_err(wrong)?;
        check_special_tokens(folder, &texts, &path)?;
        if folder.max_tokens.is_some_and(|max| max <= texts.special()) {
            let message = format!("adds {} special tokens, which leave no room for a text", texts.special());
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
            counter: Arc::new(TokenizerCounter { texts: Arc::new(texts), prompts: folder.prompts.clone() }),
            pad,
            max: folder.max_tokens.unwrap_or(usize::MAX),
            left: folder.truncate_left,
            prompt_tokens: [0; 2],
            hash: fingerprint(&bytes).ok_or_else(|| wrong("is not a tokenizer".into()))?,
        };
        tokens.count_prompts()?;
        Ok(tokens)
    }

    /// Counts the tokens of the prompts. A prompt that leaves no room for a text is an error.
    fn count_prompts(&mut self) -> Result<()> {
        let TokenizerCounter { texts, prompts } = &*self.counter;
        for kind in [InputKind::Document, InputKind::Query] {
            let prompt = prompts.of(kind).unwrap_or_default();
            let count = if prompt.is_empty() { 0 } else { texts.before.len() + texts.plain(prompt)?.len() };
            if count >= self.max.saturating_sub(texts.after.len()) {
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

    /// Prepares a text to be read. Its first part is tokenized with the prompt before it.
    fn reading<'a>(
        &'a self,
        kind: InputKind,
        text: &'a str,
    ) -> Reading<'a, impl Fn(Range<usize>) -> Result<Vec<u32>> + use<'a>> {
        let TokenizerCounter { texts, prompts } = &*self.counter;
        let tokenize = move |part: Range<usize>| match part.start {
            0 => texts.plain(&prompts.before(kind, &text[part])),
            _ => texts.plain(&text[part]),
        };
        Reading { text, split_points: texts.split_points, tokenize }
    }
}

impl std::fmt::Debug for ModelTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelTokenizer")
            .field("max", &self.max)
            .field("texts", &self.counter.texts)
            .finish_non_exhaustive()
    }
}

impl Tokenize for ModelTokenizer {
    fn tokenize(
        &self,
        kind: InputKind,
        text: &str,
        truncation: Truncation,
        so_far: &mut ReadSoFar,
        go_on: &mut dyn FnMut(Stretch) -> bool,
    ) -> Option<Result<Result<TokenizedText, TooManyTokens>>> {
        let TextTokenizer { before, after, .. } = &*self.counter.texts;
        let special = self.counter.texts.special();
        let room = self.max.saturating_sub(special);
        let fit = fit(&self.reading(kind, text), room, self.left, truncation, so_far, go_on);
        let (own, truncated) = match fit.transpose()? {
            Ok(Fit::Whole(own)) => (own, false),
            Ok(Fit::Truncated(own)) => (own, true),
            Ok(Fit::TooMany(own)) => return Some(Ok(Err(TooManyTokens(own + special)))),
            Err(error) => return Some(Err(error)),
        };
        let mut ids = Vec::with_capacity(own.len() + special);
        ids.extend_from_slice(before);
        ids.extend_from_slice(&own);
        ids.extend_from_slice(after);
        Some(Ok(Ok(TokenizedText { ids, truncated })))
    }

    fn unpooled(&self, kind: InputKind) -> usize {
        self.prompt_tokens[kind as usize]
    }

    fn limit(&self) -> usize {
        self.max
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
        let shown = |strips: Option<bool>| strips.map_or("null".into(), |strips| strips.to_string());
        let (config_says, tokenizer_says) = (shown(strips.0), shown(strips.1));
        let message =
            format!("says strip_accents is {config_says}, {} says {tokenizer_says}: make them agree", path.display());
        return Err(config.error(message));
    }
    Ok(())
}

/// Refuses special tokens that differ between the two files, for the same reason.
fn check_special_tokens(folder: &ModelFolder, texts: &TextTokenizer, path: &Path) -> Result<()> {
    let TextTokenizer { tokenizer, before, after, .. } = texts;
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
