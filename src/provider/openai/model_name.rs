//! Reads the names of models: says whether two are those of the same model, and takes from one what is no part of it.

/// Whether two names are those of the same model: `text-embedding-3-small` is also
/// `openai/text-embedding-3-small-2024-05-01`.
pub(super) fn is_same(asked: &str, answered: &str) -> bool {
    let (asked, answered) = (plain(asked), plain(answered));
    is_version(&asked, &answered) || is_version(&answered, &asked)
}

/// Whether a name has only the characters of model names, and a sensible length.
pub(super) fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || "._:/@-".contains(c))
}

/// Returns a name in lower case, without `models/`, a vendor's name, or a tag that says nothing of the model.
///
/// Unlike [`bare`], it keeps all else: how the weights are stored shows in the vectors.
fn plain(name: &str) -> String {
    let name = last_part(name).to_ascii_lowercase();
    let tag = [":latest", ":free", ".gguf"].into_iter().find(|tag| name.ends_with(tag)).unwrap_or_default();
    name[..name.len() - tag.len()].to_owned()
}

/// Ends of a name that say how the weights are stored. They follow a `-` or a `.`.
const STORAGE: [&str; 19] = [
    "gguf",
    "ggml",
    "onnx",
    "mlx",
    "awq",
    "gptq",
    "bf16",
    "f16",
    "f32",
    "fp16",
    "fp32",
    "fp8",
    "int4",
    "int8",
    "4bit",
    "8bit",
    "qat",
    "unquantized",
    "quantized",
];

/// Returns the last part of a path, in lower case already, without what says how the model is stored or served.
pub(super) fn bare(model: &str) -> &str {
    let name = last_part(model);
    // Ollama's tag, and LM Studio's quantization and first words.
    let name = name.split([':', '@']).next().unwrap_or_default();
    let mut name = name.strip_prefix("text-embedding-").unwrap_or(name);
    while let Some((rest, _)) = name.rsplit_once(['-', '.']).filter(|(_, end)| is_storage(end)) {
        name = rest;
    }
    name
}

/// Whether the end of a name says how the weights are stored, as `gguf` or `q4_k_m` do.
fn is_storage(end: &str) -> bool {
    let digits = end.strip_prefix("iq").or_else(|| end.strip_prefix('q'));
    let is_quant = |rest: &str| {
        rest.starts_with(|c: char| c.is_ascii_digit()) && rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    STORAGE.contains(&end) || digits.is_some_and(is_quant)
}

/// Returns the last part of a path, on any system.
fn last_part(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}

/// Whether `name` is `base`, or a dated version of it. A shorter number may be another model, as in `voyage-3` and
/// `voyage-3.5`.
fn is_version(base: &str, name: &str) -> bool {
    let Some(version) = name.strip_prefix(base) else { return false };
    let digits = version.bytes().filter(u8::is_ascii_digit).count();
    let is_date =
        version.starts_with(['-', '@']) && digits >= 4 && version[1..].bytes().all(|c| c.is_ascii_digit() || c == b'-');
    // OpenAI answered with this name for years.
    let is_ada = (base, version) == ("text-embedding-ada-002", "-v2");
    version.is_empty() || is_date || is_ada
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_the_same_model_and_others_are_not() {
        for (asked, answered) in [
            ("text-embedding-3-small", "text-embedding-3-small"),
            ("text-embedding-3-small", "text-embedding-3-small-2024-05-01"),
            ("text-embedding-3-small-20240501", "text-embedding-3-small"),
            ("text-embedding-3-small", "openai/text-embedding-3-small"),
            ("gemini-embedding-001", "models/gemini-embedding-001"),
            ("BAAI/bge-base-en-v1.5", "baai/bge-base-en-v1.5-20251117"),
            ("mistral-embed", "mistral-embed-2312"),
            ("nomic-embed-text", "nomic-embed-text:latest"),
            ("text-embedding-ada-002", "text-embedding-ada-002-v2"),
            ("bge-m3", "/models/bge-m3.gguf"),
            ("bge-m3", "C:\\models\\bge-m3.gguf"),
        ] {
            assert!(is_same(asked, answered) && is_same(answered, asked), "{asked} and {answered}");
        }
        for (asked, answered) in [
            ("text-embedding-3-small", "text-embedding-3-large"),
            ("text-embedding-3-small", "text-embedding-3"),
            ("voyage-3", "voyage-3.5"),
            ("voyage-3", "voyage-3-large"),
            ("gemini-embedding-001", "gemini-embedding-002"),
            ("gemini-embedding", "gemini-embedding-2"),
            ("m-2024-05-01", "m-2025-05-01"),
            ("bge-base-en-v1", "bge-base-en-v1.5"),
            ("embed-v2", "embed"),
            ("m", ""),
            ("m", "-2024-05-01"),
        ] {
            assert!(!is_same(asked, answered) && !is_same(answered, asked), "{asked} and {answered}");
        }
    }

    #[test]
    fn words_are_no_names() {
        assert!(is_name("vendor/model-v1.5:free@2024"));
        for words in ["", "two words", "m\u{e4}", "a,b", &"m".repeat(129)] {
            assert!(!is_name(words), "{words:?}");
        }
    }
}
