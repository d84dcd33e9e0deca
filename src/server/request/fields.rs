//! Reads the fields of a request's JSON: [`Fields`]. Errors name a field or a place, and quote nothing.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;

use super::input::{Input, InputSeed, NO_IDS};

/// All fields that a route knows. Each route uses its own; unknown ones are ignored, as these servers do.
#[derive(Debug, Default)]
pub(in crate::server) struct Fields {
    pub(in crate::server) texts: Option<Input>,
    pub(in crate::server) inputs: Option<Input>,
    pub(in crate::server) input: Option<Input>,
    pub(in crate::server) ids: Option<Input>,
    pub(in crate::server) model: Option<String>,
    pub(in crate::server) kind: Option<String>,
    pub(in crate::server) lane: Option<String>,
    pub(in crate::server) key: Option<String>,
    pub(in crate::server) tenant: Option<String>,
    pub(in crate::server) space: Option<String>,
    pub(in crate::server) truncation: Option<String>,
    pub(in crate::server) truncation_direction: Option<String>,
    pub(in crate::server) prompt_name: Option<String>,
    pub(in crate::server) input_type: Option<String>,
    pub(in crate::server) encoding_format: Option<String>,
    pub(in crate::server) truncate: Option<bool>,
    pub(in crate::server) normalize: Option<bool>,
    pub(in crate::server) add_special_tokens: Option<bool>,
    pub(in crate::server) skip_special_tokens: Option<bool>,
    pub(in crate::server) dimensions: Option<u64>,
    pub(in crate::server) timeout_ms: Option<u64>,
}

/// What is wrong with a request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) struct BadBody {
    /// The field, if it is one.
    pub(in crate::server) field: Option<&'static str>,
    /// What is wrong, without a word of the request.
    pub(in crate::server) message: String,
    /// Whether there is too much of something, and less would be served.
    pub(in crate::server) is_too_much: bool,
}

impl BadBody {
    /// Says that a field is not as it must be.
    pub(in crate::server) fn of(field: &'static str, message: impl fmt::Display) -> Self {
        Self { field: Some(field), message: format!("`{field}` {message}"), is_too_much: false }
    }
}

impl Fields {
    /// Reads the fields of a body with at most so many texts.
    pub(in crate::server) fn read(body: &[u8], max_texts: usize, takes_ids: bool) -> Result<Self, BadBody> {
        let mut reader = Reader { fields: Self::default(), at: None, fault: None, max_texts, takes_ids };
        let mut json = serde_json::Deserializer::from_slice(body);
        let read = FieldsSeed(&mut reader).deserialize(&mut json).and_then(|()| json.end());
        match read {
            Ok(()) => Ok(reader.fields),
            Err(error) => Err(reader.bad(&error)),
        }
    }
}

struct Reader {
    fields: Fields,
    /// The field that is being read.
    at: Option<&'static str>,
    /// Why a field is refused, if not for its type.
    fault: Option<String>,
    max_texts: usize,
    takes_ids: bool,
}

impl Reader {
    fn bad(&self, error: &serde_json::Error) -> BadBody {
        let place = format!("line {}, column {}", error.line(), error.column());
        match (self.at, &self.fault, error.classify()) {
            (Some(field), Some(fault), _) => {
                let is_too_much = fault != NO_IDS;
                BadBody { field: Some(field), message: format!("`{field}` {fault}"), is_too_much }
            }
            (Some(field), None, Category::Data) => {
                BadBody::of(field, format_args!("must be {} ({place})", kind_of(field)))
            }
            (None, _, Category::Data) => BadBody {
                field: None,
                message: format!("the body must be a JSON object ({place})"),
                is_too_much: false,
            },
            _ => {
                BadBody { field: None, message: format!("the body is not JSON in UTF-8: {place}"), is_too_much: false }
            }
        }
    }
}

/// Says what a field must be.
fn kind_of(field: &str) -> &'static str {
    match field {
        "texts" | "inputs" => "a string or a list of strings",
        "input" => "a string, a list of strings, or token ids",
        "ids" => "a list of token ids, or a list of such lists",
        "truncate" | "normalize" | "add_special_tokens" | "skip_special_tokens" => "true or false",
        "dimensions" | "timeout_ms" => "a whole number of 0 or more",
        _ => "a string",
    }
}

struct FieldsSeed<'r>(&'r mut Reader);

impl<'de> DeserializeSeed<'de> for FieldsSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldsSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let reader = self.0;
        loop {
            // Between the fields, a fault is none of a field.
            reader.at = None;
            let Some(NameOf(name)) = map.next_key()? else { return Ok(()) };
            reader.at = name;
            let fields = &mut reader.fields;
            macro_rules! read {
                ($field:ident) => {
                    fields.$field = map.next_value()?
                };
            }
            let (max_texts, takes_ids) = (reader.max_texts, reader.takes_ids);
            let mut input = || map.next_value_seed(InputSeed { max_texts, takes_ids, fault: &mut reader.fault });
            match name {
                Some("texts") => fields.texts = input()?,
                Some("inputs") => fields.inputs = input()?,
                Some("input") => fields.input = input()?,
                Some("ids") => fields.ids = input()?,
                Some("model") => read!(model),
                Some("kind") => read!(kind),
                Some("lane") => read!(lane),
                Some("key") => read!(key),
                Some("tenant") => read!(tenant),
                Some("space") => read!(space),
                Some("truncation") => read!(truncation),
                Some("truncation_direction") => read!(truncation_direction),
                Some("prompt_name") => read!(prompt_name),
                Some("input_type") => read!(input_type),
                Some("encoding_format") => read!(encoding_format),
                Some("truncate") => read!(truncate),
                Some("normalize") => read!(normalize),
                Some("add_special_tokens") => read!(add_special_tokens),
                Some("skip_special_tokens") => read!(skip_special_tokens),
                Some("dimensions") => read!(dimensions),
                Some("timeout_ms") => read!(timeout_ms),
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
    }
}

/// The known name of a field; `None` for another one.
struct NameOf(Option<&'static str>);

const NAMES: [&str; 21] = [
    "texts",
    "inputs",
    "input",
    "ids",
    "model",
    "kind",
    "lane",
    "key",
    "tenant",
    "space",
    "truncation",
    "truncation_direction",
    "prompt_name",
    "input_type",
    "encoding_format",
    "truncate",
    "normalize",
    "add_special_tokens",
    "skip_special_tokens",
    "dimensions",
    "timeout_ms",
];

impl<'de> de::Deserialize<'de> for NameOf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl Visitor<'_> for NameVisitor {
            type Value = NameOf;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a field")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<NameOf, E> {
                Ok(NameOf(NAMES.into_iter().find(|known| *known == name)))
            }
        }
        deserializer.deserialize_identifier(NameVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Fields, BadBody> {
        Fields::read(body.as_bytes(), 3, true)
    }

    #[test]
    fn every_form_of_input_is_read() {
        let input = |json: &str| {
            let input =
                read(&format!(r#"{{"x": [1, {{}}], "input": {json}, "user": "u"}}"#)).map(|fields| fields.input);
            let input = input.map_err(|bad| bad.message)?;
            Ok::<_, String>(input.map(|input| {
                let texts: Vec<String> = input.texts.iter().map(str::to_owned).collect();
                (texts, input.ids)
            }))
        };
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let none: Vec<Vec<u32>> = Vec::new();
        assert_eq!(input(r#""a\n\u00e4""#), Ok(Some((texts(&["a\nä"]), none.clone()))));
        assert_eq!(input(r#"["a", "", "c"]"#), Ok(Some((texts(&["a", "", "c"]), none.clone()))));
        assert_eq!(input("[]"), Ok(Some((texts(&[]), none.clone()))));
        assert_eq!(input("null"), Ok(None));
        assert_eq!(input("[1, 2]"), Ok(Some((texts(&[]), vec![vec![1, 2]]))));
        assert_eq!(input("[[1, 2], []]"), Ok(Some((texts(&[]), vec![vec![1, 2], vec![]]))));
        for wrong in [
            "7",
            "true",
            "{}",
            r#"["a", 1]"#,
            r#"[1, "a"]"#,
            r#"[[1], "a"]"#,
            "[1, [2]]",
            "[-1]",
            "[1.5]",
            "[4294967296]",
            "[null]",
            "[[[1]]]",
            r#"[["a"]]"#,
        ] {
            let message = input(wrong).expect_err(wrong);
            assert!(
                message.starts_with("`input` must be a string, a list of strings, or token ids (line 1"),
                "{message}"
            );
        }
        let message = input(r#"["a", "b", "c", "secret"]"#).expect_err("too many");
        assert_eq!(message, "`input` has more than 3 texts, which is the most of one request: send less");
    }

    #[test]
    fn token_ids_are_refused_at_the_first_one() {
        for input in ["[1, 2]", "[[1, 2]]", "[[]]", r#"["a", 1]"#] {
            let body = format!(r#"{{"input": {input}}}"#);
            let bad = Fields::read(body.as_bytes(), 3, false).expect_err("ids");
            assert!(bad.message.starts_with("`input` has token ids") && !bad.is_too_much, "{}", bad.message);
        }
        assert!(Fields::read(br#"{"input": ["a", "b"]}"#, 3, false).is_ok());
    }

    #[test]
    fn errors_name_the_place_and_quote_nothing() {
        for (body, message) in [
            ("", "the body is not JSON in UTF-8: line 1, column 0"),
            ("secret", "the body is not JSON in UTF-8: line 1, column 1"),
            (r#"{"texts": ["secret""#, "the body is not JSON in UTF-8: line 1, column 19"),
            (r#"{"texts": ["a"]} secret"#, "the body is not JSON in UTF-8: line 1, column 18"),
            (r#"["secret"]"#, "the body must be a JSON object (line 1, column 0)"),
            (r#""secret""#, "the body must be a JSON object (line 1, column 8)"),
            (r#"{"texts": {"secret": 1}}"#, "`texts` must be a string or a list of strings (line 1, column 11)"),
            (r#"{"truncate": "secret"}"#, "`truncate` must be true or false (line 1, column 21)"),
            (r#"{"dimensions": -3}"#, "`dimensions` must be a whole number of 0 or more (line 1, column 17)"),
            (r#"{"model": ["secret"]}"#, "`model` must be a string (line 1, column 10)"),
        ] {
            assert_eq!(read(body).expect_err(body).message, message);
        }
        let bad = Fields::read(b"{\"texts\": [\"\xff\"]}", 3, true).expect_err("no UTF-8");
        assert!(bad.message.starts_with("the body is not JSON in UTF-8"), "{}", bad.message);
    }

    #[test]
    fn every_known_name_is_read() {
        let values = NAMES.map(|name| {
            let value = match kind_of(name) {
                "true or false" => "true",
                "a whole number of 0 or more" => "7",
                _ => "\"v\"",
            };
            format!("\"{name}\": {value}")
        });
        let fields = read(&format!("{{{}}}", values.join(","))).expect("all fields");
        let shown = format!("{fields:?}");
        assert!(!shown.contains("None"), "{shown}");
        // The later of two counts, and null is nothing.
        let fields = read(r#"{"kind": "a", "kind": "b", "lane": null}"#).expect("fields");
        assert_eq!((fields.kind.as_deref(), fields.lane), (Some("b"), None));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut random = fastrand::Rng::with_seed(7);
        let whole = br#"{"texts": ["a\u00e4", "b"], "kind": "query", "inputs": [1, [2]], "dimensions": 3}"#;
        for _ in 0..20_000 {
            let mut body = whole.to_vec();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..body.len());
                body[at] = random.u8(..);
            }
            body.truncate(random.usize(..=body.len()));
            let _ = Fields::read(&body, 3, random.bool());
        }
    }
}
