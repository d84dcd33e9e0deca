//! Says the library's advice in the words of the command: [`in_command_words`].

/// The advice of the library, which speaks of its functions, and the words of the command for the same.
const WORDS: [(&str, &str); 20] = [
    (
        "embed their beginnings: `embedder.embed_all(Batch::documents(&texts).with_truncation(Truncation::Truncate))`",
        "have their beginnings embedded: --too-long truncate",
    ),
    (" (`OnnxBuilder::with_library`)", ""),
    (", in code with OnnxBuilder::with_pooling and with_normalization", ""),
    ("set OPENAI_API_KEY and use `from_env`, or call `with_api_key`", "set OPENAI_API_KEY"),
    ("check `with_api_key`", "check EMBEDDING_SERVICE_KEY"),
    ("use https, or allow it by `with_plain_http`", "use https"),
    ("`with_volatile(Volatile::Warn)` or ", ""),
    ("or lower `with_connections`", "or let fewer programs use it"),
    ("`PostgresBuilder::with_connections`", "`connections=` in its URL"),
    ("`PostgresBuilder::with_timeout`", "`timeout=` in its URL"),
    (", or set a longer `PostgresBuilder::with_connect_timeout`", ""),
    (", or open the store with `PostgresBuilder::read_only`", ""),
    (", or open it without `PostgresBuilder::read_only`", ""),
    (", or open it without `SqliteBuilder::read_only`", ""),
    ("set another `with_prefix`", "name another one by `prefix=` in its URL"),
    ("; `provider_message` has its words", ""),
    (": `provider_message` has its words, and `with_body_field` adds a field", ""),
    ("leave out or change `with_dimensions`", "leave out or change --dimensions"),
    (" (`with_limits`)", ""),
    (": `embed_each` finds which", ": --on-error record finds which"),
];

/// Replaces names of the library's functions by those of options, variables and parameters of URLs.
pub(crate) fn in_command_words(message: &str) -> String {
    let message = WORDS.iter().fold(message.to_owned(), |message, (ours, theirs)| message.replace(ours, theirs));
    without_functions(&message)
}

/// Makes `--x-y` of `with_x_y (--x-y)`, which messages for both have.
fn without_functions(message: &str) -> String {
    let (mut said, mut rest) = (String::new(), message);
    while let Some(at) = rest.find("with_") {
        let (before, from) = rest.split_at(at);
        let name = from.find(|char: char| !char.is_ascii_lowercase() && char != '_').unwrap_or(from.len());
        let after = &from[name..];
        said += before;
        match after.strip_prefix(" (--").and_then(|option| option.split_once(')')) {
            Some((option, after)) if !option.contains(['(', '`']) => {
                said.push_str("--");
                said += option;
                rest = after;
            }
            _ => {
                said += &from[..name];
                rest = after;
            }
        }
    }
    said + rest
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use docvector_embed::{BadText, BadTextReason, Error, ErrorKind};

    use super::*;

    #[test]
    fn functions_become_options() {
        for (ours, theirs) in [
            ("set with_max_tokens (--max-tokens) to at most 16", "set --max-tokens to at most 16"),
            (
                "with_a (--a) is 1, but with_b (--b 2) is not, nor `with_c(x)`",
                "--a is 1, but --b 2 is not, nor `with_c(x)`",
            ),
            ("nothing with_", "nothing with_"),
            ("", ""),
        ] {
            assert_eq!(in_command_words(ours), theirs);
        }
    }

    /// Replaces nothing that the library no longer says.
    #[test]
    fn all_words_are_those_of_the_library() {
        fn read(folder: &Path, all: &mut String) {
            for entry in fs::read_dir(folder).expect("a folder").flatten() {
                let path = entry.path();
                match path.is_dir() {
                    true if path.ends_with("bin") => {}
                    true => read(&path, all),
                    false => *all += &fs::read_to_string(path).unwrap_or_default(),
                }
            }
        }
        let mut sources = String::new();
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut sources);
        // Strings go on in the next line after a backslash.
        let parts = sources.split("\\\n").enumerate();
        let sources: String = parts.map(|(at, part)| if at == 0 { part } else { part.trim_start() }).collect();
        for (ours, _) in WORDS {
            assert!(sources.contains(ours), "{ours}");
        }
    }

    /// The words must be those that the library says.
    #[test]
    fn advice_of_the_library_is_recognized() {
        let long = BadText::new(0, BadTextReason::TooLong { tokens: 9, limit: 8 });
        let error = Error::new(ErrorKind::InvalidInput, "").with_bad_texts(vec![long]);
        let said = in_command_words(&error.to_string());
        assert!(said.contains("--too-long truncate") && !said.contains("Truncation"), "{said}");
        let key = docvector_embed::provider::OpenAi::builder("text-embedding-3-small").build().expect_err("no key");
        let said = in_command_words(&key.to_string());
        assert!(said.contains("set OPENAI_API_KEY") && !said.contains('`'), "{said}");
    }
}
