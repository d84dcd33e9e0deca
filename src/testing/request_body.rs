//! Parses the body of a request for vectors: [`RequestBody`].

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

/// A body as it came. Unknown fields, such as `user`, are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct RequestBody {
    pub(super) model: Option<String>,
    pub(super) input: Option<Input>,
    pub(super) encoding_format: Option<String>,
    pub(super) dimensions: Option<u64>,
}

/// The texts of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Input(pub(super) Vec<InputText>);

/// A text, or its tokens.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InputText {
    Text(String),
    Tokens(Vec<u32>),
}

/// An element of the input's array.
enum Element {
    Text(String),
    Token(u32),
    Tokens(Vec<u32>),
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputVisitor)
    }
}

struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = Input;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an array of strings, an array of tokens, or an array of arrays of tokens")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Input, E> {
        Ok(Input(vec![InputText::Text(text.to_owned())]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Input, A::Error> {
        let mut texts = Vec::new();
        // An array of numbers is one text. It may not be mixed with other elements.
        let mut tokens: Option<Vec<u32>> = None;
        while let Some(element) = elements.next_element()? {
            match element {
                Element::Token(token) if texts.is_empty() => tokens.get_or_insert_default().push(token),
                Element::Text(text) if tokens.is_none() => texts.push(InputText::Text(text)),
                Element::Tokens(list) if tokens.is_none() => texts.push(InputText::Tokens(list)),
                _ => return Err(A::Error::custom("mixed elements")),
            }
        }
        texts.extend(tokens.map(InputText::Tokens));
        Ok(Input(texts))
    }
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ElementVisitor)
    }
}

struct ElementVisitor;

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a token, or an array of tokens")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Element, E> {
        Ok(Element::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Element, E> {
        Ok(Element::Text(text))
    }

    fn visit_u64<E: Error>(self, token: u64) -> Result<Element, E> {
        u32::try_from(token).map(Element::Token).map_err(|_| E::custom("no token has this number"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Element, A::Error> {
        let mut tokens = Vec::new();
        while let Some(token) = elements.next_element()? {
            tokens.push(token);
        }
        Ok(Element::Tokens(tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(json: &str) -> Option<Vec<InputText>> {
        let body = serde_json::from_str::<RequestBody>(&format!("{{\"input\":{json},\"user\":\"x\"}}"));
        body.ok().and_then(|body| body.input).map(|input| input.0)
    }

    #[test]
    fn all_four_forms_of_input_are_read_and_no_other() {
        let text = |text: &str| InputText::Text(text.to_owned());
        assert_eq!(input(r#""a\n""#), Some(vec![text("a\n")]));
        assert_eq!(input(r#"["a","b"]"#), Some(vec![text("a"), text("b")]));
        assert_eq!(input("[1,2]"), Some(vec![InputText::Tokens(vec![1, 2])]));
        assert_eq!(input("[[1,2],[3]]"), Some(vec![InputText::Tokens(vec![1, 2]), InputText::Tokens(vec![3])]));
        assert_eq!(input("[]"), Some(Vec::new()));
        for wrong in ["{}", "1", r#"["a",1]"#, r#"[1,"a"]"#, "[-1]", "[1.5]", r#"[["a"]]"#, "[null]", "[4294967296]"] {
            assert_eq!(input(wrong), None, "{wrong}");
        }
    }
}
