//! Writes a [`Space`] as one line of text, and reads it back.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write},
    str::FromStr,
    sync::Arc,
};

use super::{Fields, Precision, Prompts, PromptsBy, Space, SpaceBuilder, SpaceId};
use crate::ParseError;

/// The fields, in the order in which they are written, and whether their values are in quotes.
const FIELDS: [(&str, bool); 11] = [
    ("id", false),
    ("model", true),
    ("dimensions", false),
    ("revision", true),
    ("pooling", false),
    ("normalization", false),
    ("document_prompt", true),
    ("query_prompt", true),
    ("prompts_by", false),
    ("precision", false),
    ("label", true),
];

impl Space {
    /// Returns the space as one line of text, with all its fields and its id. `str::parse` reads it back. (`Display` is
    /// for people, and shows only a part.)
    ///
    /// Store it beside a collection. Later, a program that has not loaded the model can check that an embedder answers
    /// in this space, or declare that a remote model does (`OpenAiBuilder::with_space`).
    ///
    /// ```
    /// use docvector_embed::{Normalization, Space};
    /// # fn main() -> docvector_embed::Result<()> {
    /// let space = Space::builder("text-embedding-3-small", 1536).with_normalization(Normalization::L2).build()?;
    /// let text = space.to_text();
    /// assert_eq!(
    ///     text,
    ///     "id=a39b12dacbab517a740c39a05e880932 model=\"text-embedding-3-small\" dimensions=1536 normalization=l2 \
    ///      precision=full"
    /// );
    /// assert_eq!(text.parse::<Space>()?, space);
    /// # Ok(()) }
    /// ```
    ///
    /// The same space always has the same text, in this version and in later ones. The text has no line breaks: control
    /// characters in names and prompts are escaped, as in Rust's strings.
    pub fn to_text(&self) -> String {
        // Every field by name: a new one cannot be forgotten here.
        let Fields { model, dimensions, revision, pooling, normalization, prompts, precision, label } = &*self.0;
        let mut text = String::new();
        bare(&mut text, "id", self.id());
        quoted(&mut text, "model", Some(model));
        bare(&mut text, "dimensions", dimensions);
        quoted(&mut text, "revision", revision.as_deref());
        if !pooling.is_empty() {
            let names: Vec<&str> = pooling.iter().map(|pooling| pooling.as_str()).collect();
            bare(&mut text, "pooling", names.join("+"));
        }
        bare(&mut text, "normalization", normalization);
        quoted(&mut text, "document_prompt", prompts.document.as_deref());
        quoted(&mut text, "query_prompt", prompts.query.as_deref());
        if prompts.applied_by != PromptsBy::default() {
            bare(&mut text, "prompts_by", prompts.applied_by);
        }
        bare(&mut text, "precision", precision);
        quoted(&mut text, "label", label.as_deref());
        text
    }
}

/// Appends a field whose value needs no quotes.
fn bare(text: &mut String, name: &str, value: impl Display) {
    let space = if text.is_empty() { "" } else { " " };
    // Writing to a string cannot fail.
    _ = write!(text, "{space}{name}={value}");
}

/// Appends a field in quotes, if it is there.
fn quoted(text: &mut String, name: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    bare(text, name, '"');
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            // Some programs take the last two for line breaks.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                _ = write!(text, "\\u{{{:x}}}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

impl FromStr for Space {
    type Err = ParseError;

    /// Reads the text that [`to_text`](Self::to_text) returns. White space around it and between fields does not matter,
    /// nor does the order of the fields.
    ///
    /// # Errors
    /// [`ParseError`] says at which byte the text is wrong, and why. A text whose fields do not make its id is refused:
    /// it was damaged, or a later version wrote it. (The label is no part of the id.)
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut fields = read_fields(text)?;
        let mut take = |name: &str| fields.remove(name);
        let mut needed = |name: &str| {
            let missing = || wrong(text.len(), &format!("the field {name} is missing: the text may be cut off"));
            take(name).ok_or_else(missing)
        };
        let (id_at, id) = needed("id")?;
        let id: SpaceId = id.parse().map_err(|error| within(id_at, &error))?;
        let (model_at, model) = needed("model")?;
        let (dimensions_at, dimensions) = needed("dimensions")?;
        let dimensions: usize = dimensions
            .parse()
            .map_err(|_| wrong(dimensions_at, &format!("{:?} is not a number of dimensions", shown(&dimensions))))?;
        let (normalization_at, normalization) = needed("normalization")?;
        let normalization = normalization.parse().map_err(|error| within(normalization_at, &error))?;
        let (precision_at, precision) = needed("precision")?;
        let precision: Precision = precision.parse().map_err(|error| within(precision_at, &error))?;
        let mut pooling = Vec::new();
        if let Some((at, names)) = take("pooling") {
            for name in names.split('+') {
                pooling.push(name.parse().map_err(|error| within(at, &error))?);
            }
        }
        let applied_by = match take("prompts_by") {
            Some((at, name)) => name.parse().map_err(|error| within(at, &error))?,
            None => PromptsBy::default(),
        };
        let mut string = |name: &str| take(name).map(|(_, value)| value);
        let (document, query) = (string("document_prompt").map(Arc::from), string("query_prompt").map(Arc::from));
        let prompts = Prompts { document, query, applied_by };
        let (revision, label) = (string("revision"), string("label"));
        let to_blame = if model.is_empty() { model_at } else { dimensions_at };
        let fields = Fields { model, dimensions, revision, pooling, normalization, prompts, precision, label };
        let space = SpaceBuilder(fields).build().map_err(|error| wrong(to_blame, error.message()))?;
        if space.id() != id {
            let message = format!(
                "the id is {id}, but the fields make {}: the text was damaged or edited, or a later version wrote it",
                space.id()
            );
            return Err(wrong(id_at, &message));
        }
        Ok(space)
    }
}

/// Reads `name=value` and `name="value"`, separated by white space. Returns each value with the byte at which it begins.
fn read_fields(text: &str) -> Result<BTreeMap<&str, (usize, String)>, ParseError> {
    let mut fields = BTreeMap::new();
    let mut rest = text.trim_ascii_start();
    while !rest.is_empty() {
        let at = text.len() - rest.len();
        let word = &rest[..rest.find(|c: char| c.is_ascii_whitespace()).unwrap_or(rest.len())];
        let Some((name, after)) = word.split_once('=') else {
            let message = format!("{:?} is not name=value, as `Space::to_text` writes the fields", shown(word));
            return Err(wrong(at, &message));
        };
        let Some((_, in_quotes)) = FIELDS.iter().find(|(known, _)| *known == name) else {
            let message = format!("{:?} is not the name of a field: a later version may have written it", shown(name));
            return Err(wrong(at, &message));
        };
        if fields.contains_key(name) {
            return Err(wrong(at, &format!("the field {name} is there twice")));
        }
        let value_at = at + name.len() + 1;
        let (value, end) = match in_quotes {
            true => read_quoted(text, value_at)?,
            false => (after.to_owned(), at + word.len()),
        };
        fields.insert(name, (value_at, value));
        rest = text[end..].trim_ascii_start();
    }
    Ok(fields)
}

/// Reads a string in quotes that begins at this byte. Returns it, and the byte after its end.
fn read_quoted(text: &str, at: usize) -> Result<(String, usize), ParseError> {
    let Some(inner) = text[at..].strip_prefix('"') else {
        return Err(wrong(at, "the value must be in quotes (\")"));
    };
    let mut value = String::new();
    let mut chars = inner.char_indices();
    while let Some((offset, c)) = chars.next() {
        let here = at + 1 + offset;
        match c {
            '"' if inner[offset + 1..].starts_with(|c: char| !c.is_ascii_whitespace()) => {
                return Err(wrong(here + 1, "after the closing quote there must be a space, or the end"));
            }
            '"' => return Ok((value, here + 1)),
            '\\' => value.push(match chars.next() {
                Some((_, c @ ('"' | '\\'))) => c,
                Some((_, 'n')) => '\n',
                Some((_, 'r')) => '\r',
                Some((_, 't')) => '\t',
                Some((offset, 'u')) => {
                    let code = inner[offset + 1..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
                    let digits = code.map_or("", |(digits, _)| digits);
                    let is_hex = (1..=6).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                    let code = u32::from_str_radix(digits, 16).ok().filter(|_| is_hex).and_then(char::from_u32);
                    // Past the two braces and the digits.
                    chars.nth(digits.len() + 1);
                    code.ok_or_else(|| wrong(here, "\\u must be followed by a character's code, as in \\u{7f}"))?
                }
                _ => return Err(wrong(here, "a backslash must be followed by one of \" \\ n r t u")),
            }),
            c => value.push(c),
        }
    }
    Err(wrong(at, "the closing quote is missing: the text may be cut off"))
}

/// Returns so much of a piece of the text as an error shows.
fn shown(piece: &str) -> String {
    piece.chars().take(40).collect()
}

fn wrong(at: usize, message: &str) -> ParseError {
    ParseError::new(format!("the text of a space is wrong at byte {at}: {message}"))
}

/// Makes the error for a value that is wrong by itself.
fn within(at: usize, error: &ParseError) -> ParseError {
    wrong(at, error.message())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Error, ErrorKind, Normalization, Pooling};

    fn spaces() -> impl Strategy<Value = Space> {
        let string = || {
            prop_oneof![
                "[a-z/=\"\\\\ -]{1,12}",
                "\\PC{1,8}",
                prop::collection::vec(any::<char>(), 1..6).prop_map(String::from_iter)
            ]
        };
        let optional = move || proptest::option::of(prop_oneof![1 => Just(String::new()), 5 => string()]);
        let names = (string(), optional(), optional(), optional(), optional());
        let pooling = prop::collection::vec(prop::sample::select(Pooling::ALL), 0..4);
        let normalization = prop::sample::select(Normalization::ALL);
        let precision = prop::sample::select(Precision::ALL);
        let applied_by = prop::sample::select(PromptsBy::ALL);
        (names, 1..65_537_usize, pooling, normalization, precision, applied_by).prop_map(
            |((model, revision, document, query, label), dimensions, pooling, normalization, precision, applied_by)| {
                let (document, query) = (document.map(Arc::from), query.map(Arc::from));
                let prompts = Prompts { document, query, applied_by };
                let fields = Fields { model, dimensions, revision, pooling, normalization, prompts, precision, label };
                SpaceBuilder(fields).build().expect("a space")
            },
        )
    }

    /// The byte that an error names.
    fn place(error: &ParseError) -> usize {
        let (_, after) = error.message().split_once("at byte ").expect("says where");
        after.split(':').next().and_then(|at| at.parse().ok()).expect("a number")
    }

    proptest! {
        #[test]
        fn every_space_is_read_back(space in spaces()) {
            let text = space.to_text();
            prop_assert!(!text.contains(char::is_control), "{text:?}");
            let read: Space = text.parse().expect("its own text");
            // All fields, of which the label is no part of the id.
            prop_assert_eq!(read.to_builder(), space.to_builder());
            prop_assert_eq!(read.to_text(), text.clone());
            prop_assert!(["\n ", &text, "\r\n"].concat().parse::<Space>().is_ok());
        }

        #[test]
        fn damage_is_found_or_changes_no_more_than_the_label(
            space in spaces(),
            at in any::<prop::sample::Index>(),
            by in prop_oneof![Just(None), any::<char>().prop_map(Some), "[a-f0-9=\" \\\\]".prop_map(|c| c.chars().next())],
        ) {
            let text = space.to_text();
            let at = at.index(text.chars().count());
            let damaged: String =
                text.chars().enumerate().filter_map(|(i, c)| if i == at { by } else { Some(c) }).collect();
            match damaged.parse::<Space>() {
                Ok(read) => prop_assert_eq!(read.id(), space.id()),
                Err(error) => prop_assert!(place(&error) <= damaged.len(), "{error} in {damaged:?}"),
            }
        }

        #[test]
        fn a_text_that_is_cut_off_is_found(space in spaces(), end in any::<prop::sample::Index>()) {
            let space = space.to_builder().with_label("").build().expect("a space");
            let text = space.to_text();
            let end = text.floor_char_boundary(end.index(text.len()));
            match text[..end].parse::<Space>() {
                Ok(_) => prop_assert!(end >= text.len() - " label=\"\"".len(), "{}", &text[..end]),
                Err(error) => prop_assert!(place(&error) <= end, "{error}"),
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(id=|model=|\\\\u|\\{|\\}|\"|[a-f0-9]|\\PC| ){0,40}") {
            if let Err(error) = text.parse::<Space>() {
                prop_assert!(place(&error) <= text.len(), "{error} in {text:?}");
            }
        }
    }

    /// Collections hold these texts. Add to the table; change nothing in it.
    #[test]
    fn texts_stay_as_they_are() {
        let builder = || Space::builder("a-model", 384);
        let empty = Prompts { query: Some("".into()), ..Prompts::default() };
        for (builder, expected) in [
            (
                builder(),
                "id=f5cee18fa372b5c62e6af5ceb54e1f52 model=\"a-model\" dimensions=384 normalization=none precision=full",
            ),
            (
                builder()
                    .with_revision("1")
                    .with_pooling([Pooling::Mean, Pooling::Cls])
                    .with_normalization(Normalization::L2)
                    .with_prompts(Prompts::by_server("d: ", "say \"\\\n\u{7f}é"))
                    .with_precision(Precision::Int8)
                    .with_label("A model"),
                "id=15cd62d84f47fc372690d4c2c346413b model=\"a-model\" dimensions=384 revision=\"1\" pooling=mean+cls \
                 normalization=l2 document_prompt=\"d: \" query_prompt=\"say \\\"\\\\\\n\\u{7f}é\" prompts_by=server \
                 precision=int8 label=\"A model\"",
            ),
        ] {
            let space = builder.build().expect("a space");
            assert_eq!(space.to_text(), expected);
            assert_eq!(expected.parse::<Space>().expect("read").to_builder(), space.to_builder());
        }
        // An empty prompt is another space than none, and stays one.
        let space = builder().with_prompts(empty).build().expect("a space");
        assert_eq!(space.to_text().parse::<Space>().expect("read").prompts(), space.prompts());
    }

    #[test]
    fn an_error_says_where_and_why() {
        let good =
            "id=f5cee18fa372b5c62e6af5ceb54e1f52 model=\"a-model\" dimensions=384 normalization=none precision=full";
        let shown = Space::builder("a-model", 384).build().expect("a space").to_string();
        for (text, at, why) in [
            (String::new(), 0, "the field id is missing: the text may be cut off"),
            (shown, 0, "\"a-model\" is not name=value, as `Space::to_text` writes the fields"),
            (good.replace("id=f", "id=x"), 3, "a space id must be 32 hex digits"),
            (good.replace("id=f", "id=e"), 3, "but the fields make f5cee18fa372b5c62e6af5ceb54e1f52"),
            (good.replace("384", "768"), 3, "the text was damaged or edited"),
            (good.replace("384", "0"), 63, "must be 1 to 65536"),
            (good.replace("384", "3x4"), 63, "\"3x4\" is not a number of dimensions"),
            (good.replace("\"a-model\"", "\"\""), 42, "without the name of its model"),
            (good.replace("\"a-model\"", "a-model"), 42, "must be in quotes"),
            (good.replace("model\" ", "model\""), 51, "after the closing quote"),
            (good.replace("a-model", "a\\model"), 44, "a backslash must be followed by one of"),
            (good.replace("a-model", "\\u{d800}"), 43, "a character's code"),
            (good.replace("none", "l3"), 81, "\"l3\" as a normalization: it must be one of none, l2"),
            (good.replace("precision", "exactness"), 86, "\"exactness\" is not the name of a field"),
            (format!("{good} label=\"x"), good.len() + 7, "the closing quote is missing"),
            (format!("{good} precision=full"), good.len() + 1, "the field precision is there twice"),
            (good.replace(" precision=full", ""), good.len() - 15, "the field precision is missing"),
        ] {
            let error = text.parse::<Space>().expect_err(&text);
            assert!(place(&error) == at && error.message().contains(why), "{error} in {text}");
            assert_eq!(Error::from(error).kind(), ErrorKind::Config);
        }
    }
}
