//! Embeds texts with fastembed-rs, as often as it is told to, and prints the seconds of each run.
//!
//! `bench-fastembed --folder DIR --onnx FILE --texts DIR [--max-tokens 512] [--threads N]`
//!
//! The folder has the tokenizer's files, `--onnx` is the model, `--texts` holds `<corpus>.jsonl`, lines of JSON
//! strings; `ORT_DYLIB_PATH` names ONNX Runtime's library. Without `--threads`, fastembed decides. Then each line of
//! stdin is `<corpus> <setting> <texts> [<file>]`: embed the first `<texts>` texts of the corpus in one call, and write
//! the vectors to the file, if one is given, as 32-bit floats. Each line is answered with a line of JSON. The setting
//! is the number of texts per batch, or `default` for fastembed's own. All of it is as in
//! benches/peers/src/bin/local.rs.

use std::{
    collections::HashMap,
    error::Error,
    fs,
    io::{BufRead as _, Write as _},
    path::{Path, PathBuf},
    time::Instant,
};

use fastembed::{InitOptionsUserDefined, Pooling, TextEmbedding, TokenizerFiles, UserDefinedEmbeddingModel};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> Result<()> {
    let options = options(&["folder", "onnx", "texts", "max-tokens", "threads"])?;
    let path = |name: &str| options.get(name).map(PathBuf::from).ok_or_else(|| format!("--{name} is missing"));
    let mut model = load(&path("folder")?, &path("onnx")?, &options)?;
    let folder = path("texts")?;
    let mut corpora = HashMap::new();
    answer(&serde_json::json!({}))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let (corpus, setting, texts, file) = match words[..] {
            [corpus, setting, texts] => (corpus, setting, texts, None),
            [corpus, setting, texts, file] => (corpus, setting, texts, Some(file)),
            _ => return Err(format!("not <corpus> <setting> <texts> [<file>]: {line}").into()),
        };
        if !corpora.contains_key(corpus) {
            corpora.insert(corpus.to_owned(), read_texts(&folder.join(format!("{corpus}.jsonl")))?);
        }
        let texts =
            corpora[corpus].get(..texts.parse()?).ok_or_else(|| format!("{corpus} has fewer than {texts} texts"))?;
        let batch_size = if setting == "default" { None } else { Some(setting.parse()?) };
        let start = Instant::now();
        let rows = model.embed(texts, batch_size)?;
        let seconds = start.elapsed().as_secs_f64();
        if rows.len() != texts.len() {
            return Err(format!("{} rows for {} texts", rows.len(), texts.len()).into());
        }
        if let Some(file) = file {
            let bytes: Vec<u8> = rows.iter().flatten().flat_map(|component| component.to_le_bytes()).collect();
            fs::write(file, bytes)?;
        }
        answer(&serde_json::json!({ "texts": texts.len(), "seconds": seconds }))?;
    }
    Ok(())
}

fn load(folder: &Path, onnx: &Path, options: &HashMap<String, String>) -> Result<TextEmbedding> {
    let read = |path: PathBuf| fs::read(&path).map_err(|error| format!("{}: {error}", path.display()));
    let tokenizer = TokenizerFiles {
        tokenizer_file: read(folder.join("tokenizer.json"))?,
        config_file: read(folder.join("config.json"))?,
        special_tokens_map_file: read(folder.join("special_tokens_map.json"))?,
        tokenizer_config_file: read(folder.join("tokenizer_config.json"))?,
    };
    // As fastembed's own entry for this model: mean pooling, which it follows by scaling to length 1.
    let model = UserDefinedEmbeddingModel::new(read(onnx.to_owned())?, tokenizer).with_pooling(Pooling::Mean);
    let mut with = InitOptionsUserDefined::new();
    if let Some(tokens) = options.get("max-tokens") {
        with = with.with_max_length(tokens.parse()?);
    }
    if let Some(threads) = options.get("threads") {
        with = with.with_intra_threads(threads.parse()?);
    }
    Ok(TextEmbedding::try_new_from_user_defined(model, with)?)
}

/// The command line: `--name value` pairs.
fn options(names: &[&str]) -> Result<HashMap<String, String>> {
    let mut options = HashMap::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let name = argument.strip_prefix("--").filter(|name| names.contains(name));
        let name = name.ok_or_else(|| format!("{argument} is not among --{}", names.join(", --")))?;
        let value = arguments.next().ok_or_else(|| format!("{argument} needs a value"))?;
        options.insert(name.to_owned(), value);
    }
    Ok(options)
}

fn read_texts(path: &Path) -> Result<Vec<String>> {
    let lines = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn answer(told: &serde_json::Value) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{told}")?;
    Ok(stdout.flush()?)
}
