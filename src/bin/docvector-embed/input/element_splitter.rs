//! Finds the elements of one JSON array by brackets and strings: [`ElementSplitter`].

use memchr::memchr2;

use super::pieces::{Fault, Scan, Splitter};

/// Makes a piece of each element. The elements are not checked here: they are parsed later.
#[derive(Debug, Default)]
pub(super) struct ElementSplitter {
    place: Place,
    /// Brackets of the element that are open.
    depth: u64,
    in_string: bool,
    /// Whether the next character of the string is escaped.
    is_escaped: bool,
}

/// The place of the next byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    BeforeArray,
    BeforeFirst,
    /// After a comma.
    BeforeElement,
    /// In an object, an array or a string.
    InBrackets,
    /// In a number or a word.
    InScalar,
    AfterElement,
    AfterArray,
}

impl Splitter for ElementSplitter {
    fn scan(&mut self, bytes: &[u8]) -> Result<Scan, Fault> {
        let skipped = match self.place {
            Place::InBrackets | Place::InScalar => 0,
            _ => self.skip(bytes)?,
        };
        let end = match self.place {
            Place::InBrackets => self.end_of_brackets(&bytes[skipped..]),
            Place::InScalar => bytes[skipped..].iter().position(|byte| is_space(*byte) || b",]".contains(byte)),
            _ => return Ok(Scan { skipped, taken: 0, ended: false }),
        };
        if end.is_some() {
            self.place = Place::AfterElement;
        }
        Ok(Scan { skipped, taken: end.unwrap_or(bytes.len() - skipped), ended: end.is_some() })
    }

    fn missing(&self) -> Option<&'static str> {
        match self.place {
            Place::BeforeArray => Some("the input is empty, and a JSON array without texts is `[]`"),
            Place::AfterArray => None,
            _ => Some("the JSON array is not whole: its `]` is missing"),
        }
    }
}

impl ElementSplitter {
    /// Passes over what is between elements, and returns how many bytes that is.
    fn skip(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        for (at, &byte) in bytes.iter().enumerate().filter(|(_, byte)| !is_space(**byte)) {
            self.place = match (self.place, byte) {
                (Place::BeforeArray, b'[') => Place::BeforeFirst,
                (Place::BeforeArray, b'{') => {
                    let what = "this begins with `{`, and a JSON array with `[`: --input-format jsonl reads one object \
                                per line";
                    return Err(Fault { at, what });
                }
                (Place::BeforeArray, _) => return Err(Fault { at, what: "a JSON array begins with `[`" }),
                (Place::BeforeFirst | Place::AfterElement, b']') => Place::AfterArray,
                (Place::AfterElement, b',') => Place::BeforeElement,
                (Place::AfterElement, _) => {
                    return Err(Fault { at, what: "`,` or `]` is missing after an element of the JSON array" });
                }
                (Place::AfterArray, _) => return Err(Fault { at, what: "the JSON array has ended, and more follows" }),
                (_, b',' | b']') => return Err(Fault { at, what: "an element of the JSON array is missing" }),
                (_, b'"' | b'{' | b'[') => Place::InBrackets,
                (_, _) => Place::InScalar,
            };
            if matches!(self.place, Place::InBrackets | Place::InScalar) {
                return Ok(at);
            }
        }
        Ok(bytes.len())
    }

    /// Returns where an object, array or string ends, if it does.
    fn end_of_brackets(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.in_string {
                at += self.string_bytes(&bytes[at..]);
            } else {
                at += 1;
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => self.depth -= 1,
                    _ => {}
                }
            }
            if self.depth == 0 && !self.in_string {
                return Some(at);
            }
        }
        None
    }

    /// Reads on in a string, and returns how many bytes of it were read.
    fn string_bytes(&mut self, bytes: &[u8]) -> usize {
        if self.is_escaped {
            self.is_escaped = false;
            return 1;
        }
        let Some(at) = memchr2(b'"', b'\\', bytes) else { return bytes.len() };
        match bytes[at] {
            b'"' => self.in_string = false,
            _ => self.is_escaped = true,
        }
        at + 1
    }
}

/// Returns whether a byte is white space in JSON.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::{super::pieces::testing::split, *};

    fn elements(bytes: &str) -> Vec<String> {
        split(ElementSplitter::default, bytes.as_bytes())
    }

    #[test]
    fn elements_are_found_by_brackets_and_strings() {
        assert_eq!(elements("[]"), [""; 0]);
        assert_eq!(elements(" [ \n ] \n"), [""; 0]);
        assert_eq!(elements("[\"a\"]"), ["1: \"a\""]);
        assert_eq!(elements("[\"a]\\\"\\\\\",\n\"\\u0041\"]"), ["1: \"a]\\\"\\\\\"", "2: \"\\u0041\""]);
        let objects = "\n[\n  {\"a\": \"}]\", \"b\": [1, {}]}\n  ,\n  {\n    \"a\": 1\n  }\n]";
        assert_eq!(elements(objects), ["3: {\"a\": \"}]\", \"b\": [1, {}]}", "5: {\n    \"a\": 1\n  }"]);
        assert_eq!(elements("[1,true , -2.5e3\n,null]"), ["1: 1", "1: true", "1: -2.5e3", "2: null"]);
        assert_eq!(elements("[[[]],{\"[\":\"\\\\\"}]"), ["1: [[]]", "1: {\"[\":\"\\\\\"}"]);
    }

    #[test]
    fn faults_of_elements_are_left_to_who_parses_them() {
        assert_eq!(elements("[{\"a\":1], x, }]"), ["1: {\"a\":1]", "1: x", "1: }"]);
    }

    #[test]
    fn a_broken_array_is_named_by_its_line() {
        for (bytes, end) in [
            ("", "broken on 1: the input is empty, and a JSON array without texts is `[]`"),
            ("\n \n", "broken on 3: the input is empty, and a JSON array without texts is `[]`"),
            ("\n{}", "broken on 2: this begins with `{`"),
            ("\"a\"", "broken on 1: a JSON array begins with `[`"),
            ("[", "broken on 1: the JSON array is not whole"),
            ("[1", "broken on 1: the JSON array is not whole"),
            ("[\n1,\n{\n", "broken on 3: the JSON array is not whole"),
            ("[1,\n]", "broken on 2: an element of the JSON array is missing"),
            ("[,1]", "broken on 1: an element of the JSON array is missing"),
            ("[1\n2]", "broken on 2: `,` or `]` is missing"),
            ("[\"a\"\n\n}", "broken on 3: `,` or `]` is missing"),
            ("[1]\n[2]", "broken on 2: the JSON array has ended"),
        ] {
            let found = elements(bytes);
            assert!(found.last().is_some_and(|last| last.starts_with(end)), "{bytes:?}: {found:?}");
        }
    }

    #[test]
    fn depth_costs_no_memory() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(elements(&format!("[{deep}]")), [format!("1: {deep}")]);
    }
}
