//! Reads rows of JSON numbers, `[[0.1, ...], ...]`, straight into one vector of numbers: [`read`].

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::error::Category;

use super::received_rows::{check_lengths, result_of};
use crate::{Embeddings, Error, ErrorKind, Result, Space, Usage};

/// The widest row that is read if the width is not known: that of a [`Space`] can be no larger.
const MAX_WIDTH: usize = 65_536;

/// Returns the maximum bytes of a reply to `rows` texts: numbers of up to 24 characters with the white space of a pretty
/// printer.
pub(super) fn max_bytes(rows: usize, dimensions: usize) -> usize {
    rows.saturating_mul(dimensions.saturating_mul(32).saturating_add(1024)).saturating_add(64 << 10)
}

/// Returns the maximum bytes of a reply to one text of a model whose width is not known.
pub(super) fn max_bytes_of_probe() -> usize {
    max_bytes(1, MAX_WIDTH)
}

/// Reads the reply to a request of `rows` texts in this space. `usage` is what the head of the reply tells.
pub(super) fn read(
    body: &[u8],
    rows: usize,
    space: &Space,
    usage: Usage,
    has_content_length: bool,
) -> Result<Embeddings> {
    let mut matrix = Matrix::new(rows, space.dimensions());
    matrix.components.reserve_exact(rows.saturating_mul(space.dimensions()));
    let parsed = matrix.parse(body);
    matrix.check(parsed, body, usage, has_content_length)?;
    check_lengths(result_of(rows, space, matrix.components, usage)?)
}

/// Reads the reply to a request of one text, whatever its width.
pub(super) fn read_one(body: &[u8]) -> Result<Vec<f32>> {
    let mut matrix = Matrix::new(1, 0);
    let parsed = matrix.parse(body);
    matrix.check(parsed, body, Usage::of_request(None), true)?;
    Ok(matrix.components)
}

/// A reply as far as it was read.
struct Matrix {
    rows: usize,
    /// The components of a row; 0 before the first row, if they are not known.
    width: usize,
    components: Vec<f32>,
    /// Rows that were read.
    read: usize,
    fault: Option<String>,
}

impl Matrix {
    const fn new(rows: usize, width: usize) -> Self {
        Self { rows, width, components: Vec::new(), read: 0, fault: None }
    }

    fn parse(&mut self, body: &[u8]) -> serde_json::Result<()> {
        let mut json = serde_json::Deserializer::from_slice(body);
        RowsSeed(self).deserialize(&mut json).and_then(|()| json.end())
    }

    /// Makes the error of a reply that was not read to its end, or that has too few rows.
    fn check(
        &mut self,
        parsed: serde_json::Result<()>,
        body: &[u8],
        usage: Usage,
        has_content_length: bool,
    ) -> Result<()> {
        let wrong = |message: String| Err(Error::new(ErrorKind::Protocol, message).with_usage(usage).of_whole_reply());
        match (self.fault.take(), parsed) {
            (Some(fault), _) => wrong(fault),
            (None, Ok(())) if self.read == self.rows => Ok(()),
            (None, Ok(())) => wrong(format!("{} vectors for {} texts", self.read, self.rows)),
            (None, Err(error)) => {
                // The parser's message may quote the reply, so the error has only its place.
                let at = format!("line {}, column {} of {} bytes", error.line(), error.column(), body.len());
                match error.classify() {
                    // With a content length, the HTTP layer would have noticed a lost end.
                    Category::Eof if !has_content_length => {
                        let error = Error::new(ErrorKind::Unavailable, format!("the reply ends early, at {at}"));
                        Err(error.with_usage(Usage::of_unanswered()))
                    }
                    Category::Eof => wrong(format!("the reply's JSON ends early, at {at}")),
                    Category::Data => wrong(format!("the reply has not the form of vectors, at {at}")),
                    _ if body.trim_ascii_start().first() == Some(&b'<') => {
                        wrong("the reply is a web page: check that the URL is that of an embedding service".to_owned())
                    }
                    _ => wrong(format!("the reply is not JSON, at {at}")),
                }
            }
        }
    }

    /// Notes the first fault, and ends the reading.
    fn fail<E: serde::de::Error>(&mut self, message: String) -> E {
        self.fault = Some(message);
        E::custom("a fault of the reply")
    }
}

/// Implements `Visitor::expecting`, which describes what a visitor expects.
macro_rules! expecting {
    ($what:literal) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str($what)
        }
    };
}

/// Reads all rows.
struct RowsSeed<'m>(&'m mut Matrix);

impl<'de> DeserializeSeed<'de> for RowsSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for RowsSeed<'_> {
    type Value = ();

    expecting!("rows of numbers");

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        while rows.next_element_seed(RowSeed(self.0))?.is_some() {
            self.0.read += 1;
        }
        Ok(())
    }
}

/// Reads one row.
struct RowSeed<'m>(&'m mut Matrix);

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = ();

    expecting!("numbers");

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<(), A::Error> {
        let Self(matrix) = self;
        if matrix.read == matrix.rows {
            let rows = matrix.rows;
            return Err(matrix.fail(format!("more than {rows} vectors for {rows} texts")));
        }
        let start = matrix.components.len();
        let most = if matrix.width == 0 { MAX_WIDTH } else { matrix.width };
        // JSON has no NaN, so servers write null.
        while let Some(number) = numbers.next_element::<Option<f32>>()? {
            if matrix.components.len() - start == most {
                let row = matrix.read;
                return Err(matrix.fail(format!("vector {row} has more than {most} components: {OTHER_WIDTH}")));
            }
            matrix.components.push(number.unwrap_or(f32::NAN));
        }
        let have = matrix.components.len() - start;
        if have == 0 || (matrix.width != 0 && have != matrix.width) {
            let (row, width) = (matrix.read, matrix.width);
            return Err(matrix.fail(format!("vector {row} has {have} components, not {width}: {OTHER_WIDTH}")));
        }
        matrix.width = have;
        Ok(())
    }
}

const OTHER_WIDTH: &str = "the server has another model, or the declared space is wrong";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn space(width: usize) -> Space {
        Space::builder("a-model", width).build().expect("valid")
    }

    fn rows_of(body: &str, rows: usize) -> Result<Embeddings> {
        read(body.as_bytes(), rows, &space(2), Usage::of_request(Some(5)), true)
    }

    #[test]
    fn rows_are_read_in_their_order() {
        let rows = rows_of(" [ [1, -2.5],[3e-3 , 4E2] ]\n", 2).expect("rows");
        assert_eq!(rows.as_slice(), [1.0, -2.5, 0.003, 400.0]);
        assert_eq!(rows.usage(), Usage::of_request(Some(5)));
        assert_eq!(read_one(b"[[1, 2, 3]]").expect("a row"), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn what_does_not_fit_is_an_error_with_its_cost() {
        for (body, message) in [
            ("", "ends early"),
            ("[[1,2],[3", "ends early"),
            ("[[1,2]]", "1 vectors for 2 texts"),
            ("[]", "0 vectors for 2 texts"),
            ("[[1,2],[3,4],[5,6]]", "more than 2 vectors"),
            ("[[1,2],[3]]", "vector 1 has 1 components, not 2"),
            ("[[1,2,3],[4,5,6]]", "vector 0 has more than 2 components"),
            ("[[],[]]", "vector 0 has 0 components"),
            ("[[1,\"planted\"],[3,4]]", "not the form of vectors"),
            ("{\"error\":\"planted\"}", "not the form of vectors"),
            ("planted", "not JSON"),
            ("<html>planted</html>", "web page"),
            ("[[1,2],[3,4]] planted", "not JSON"),
            ("[[1,1e999],[3,4]]", "not JSON"),
        ] {
            let error = rows_of(body, 2).expect_err(body);
            assert_eq!((error.kind(), error.usage()), (ErrorKind::Protocol, Usage::of_request(Some(5))), "{body}");
            assert!(error.message().contains(message), "{body}: {error}");
            assert!(!format!("{error:?}").contains("planted"), "{error:?}");
        }
        for body in ["[]", "[[]]", "[[1],[2]]", "[1]"] {
            assert!(read_one(body.as_bytes()).is_err(), "{body}");
        }
        let wide = format!("[[{}1]]", "1,".repeat(MAX_WIDTH));
        assert!(read_one(wide.as_bytes()).expect_err("too wide").message().contains("more than 65536"));
        let lost = read(b"[[1,2", 1, &space(2), Usage::ZERO, false).expect_err("the end is lost");
        assert_eq!((lost.kind(), lost.usage()), (ErrorKind::Unavailable, Usage::of_unanswered()));
    }

    #[test]
    fn rows_that_no_text_can_have_are_named_beside_the_others() {
        let error = rows_of("[[1,2],[null,4],[0,0],[1e39,1]]", 4).expect_err("unusable");
        let bad: Vec<usize> = error.bad_texts().iter().map(|bad| bad.index).collect();
        assert_eq!((error.kind(), bad), (ErrorKind::Protocol, vec![1, 2, 3]));
        assert_eq!(error.partial().map(|partial| partial.indices().to_vec()), Some(vec![0]));
    }

    #[test]
    fn vectors_that_were_not_scaled_are_found() {
        let unit = space(2).to_builder().with_normalization(crate::Normalization::L2).build().expect("valid");
        let of = |body: &str| read(body.as_bytes(), 1, &unit, Usage::ZERO, true);
        assert!(of("[[0.6, 0.8]]").is_ok());
        let error = of("[[3, 4]]").expect_err("of length 5");
        assert!(error.message().contains("row 0 has length 5.000"), "{error}");
    }

    proptest! {
        #[test]
        fn numbers_are_read_back(rows in prop::collection::vec(prop::array::uniform3(0.001_f32..1e30), 1..20)) {
            let body = serde_json::to_vec(&rows).expect("JSON");
            prop_assert!(body.len() <= max_bytes(rows.len(), 3));
            let read = read(&body, rows.len(), &space(3), Usage::ZERO, true);
            let read = read.map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(read.as_slice(), rows.iter().flatten().copied().collect::<Vec<f32>>());
        }

        /// Any changed bytes are an error, or rows of the right count and width, and never a panic.
        #[test]
        fn damaged_replies_are_errors_or_rows(
            damage in prop::collection::vec((any::<prop::sample::Index>(), "[0-9,\\[\\]. enul\"-]"), 0..6),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut body = b"[[1.5,2.25],[3.125,4],[5,6e2]]".to_vec();
            for (at, byte) in damage {
                let at = at.index(body.len());
                body[at] = byte.as_bytes()[0];
            }
            if let Some(cut) = cut {
                body.truncate(cut.index(body.len()));
            }
            if let Ok(read) = read(&body, 3, &space(2), Usage::ZERO, true) {
                prop_assert_eq!((read.len(), read.dimensions()), (3, 2));
            }
            let _ = read_one(&body);
        }

        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), rows in 0_usize..4) {
            let _ = read(&body, rows, &space(2), Usage::ZERO, false);
        }
    }
}
