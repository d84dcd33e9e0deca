//! Writes rows as JSON, piece by piece, so that a large reply is never held twice: [`JsonRows`].

use std::io::Write;

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{Embeddings, server::request::Encoding};

/// A piece is sent when it has so many bytes. It takes a fraction of a millisecond to write.
const PIECE: usize = 64 << 10;

/// Rows that are written as JSON while they are sent.
#[derive(Debug)]
pub(super) struct JsonRows {
    embeddings: Embeddings,
    form: Form,
    /// The row that is next.
    next: usize,
    head: Option<&'static str>,
    tail: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    /// The vector alone.
    Plain,
    /// OpenAI's object around a vector.
    OpenAi(Encoding),
}

impl JsonRows {
    /// Writes the vectors alone, between a head and a tail.
    pub(super) const fn plain(embeddings: Embeddings, head: &'static str, tail: String) -> Self {
        Self { embeddings, form: Form::Plain, next: 0, head: Some(head), tail: Some(tail) }
    }

    /// Writes OpenAI's objects, between a head and a tail.
    pub(super) const fn of_openai(
        embeddings: Embeddings,
        encoding: Encoding,
        head: &'static str,
        tail: String,
    ) -> Self {
        Self { embeddings, form: Form::OpenAi(encoding), next: 0, head: Some(head), tail: Some(tail) }
    }

    /// Returns the next piece; `None` at the end.
    pub(super) fn next_piece(&mut self) -> Option<Vec<u8>> {
        self.tail.as_ref()?;
        // A number has about 13 characters.
        let about = (self.embeddings.len() - self.next).saturating_mul(self.embeddings.dimensions() * 13 + 64) + 256;
        let mut piece = Vec::with_capacity(about.min(PIECE + self.embeddings.dimensions() * 16));
        piece.extend_from_slice(self.head.take().unwrap_or_default().as_bytes());
        while self.next < self.embeddings.len() {
            if piece.len() >= PIECE {
                return Some(piece);
            }
            self.write_row(&mut piece);
            self.next += 1;
        }
        piece.extend_from_slice(self.tail.take().unwrap_or_default().as_bytes());
        Some(piece)
    }

    /// Whether everything was written.
    pub(super) const fn is_done(&self) -> bool {
        self.tail.is_none()
    }

    fn write_row(&self, piece: &mut Vec<u8>) {
        let row = self.embeddings.row(self.next);
        if self.next > 0 {
            piece.push(b',');
        }
        match self.form {
            Form::Plain => write_numbers(piece, row),
            Form::OpenAi(encoding) => {
                // A vector takes everything that is written to it.
                let _ = write!(piece, "{{\"object\":\"embedding\",\"index\":{},\"embedding\":", self.next);
                match encoding {
                    Encoding::Numbers => write_numbers(piece, row),
                    Encoding::Base64 => write_base64(piece, row),
                }
                piece.push(b'}');
            }
        }
    }
}

/// Writes numbers with as few digits as tell each f32 apart.
fn write_numbers(piece: &mut Vec<u8>, row: &[f32]) {
    // Components are finite numbers, which JSON has.
    let _ = serde_json::to_writer(piece, row);
}

fn write_base64(piece: &mut Vec<u8>, row: &[f32]) {
    let start = piece.len();
    let bytes: Vec<u8>;
    let bytes = match cfg!(target_endian = "little") {
        true => bytemuck::cast_slice(row),
        false => {
            bytes = row.iter().flat_map(|component| component.to_le_bytes()).collect();
            &bytes[..]
        }
    };
    piece.resize(start + 2 + bytes.len().div_ceil(3) * 4, b'"');
    let end = piece.len() - 1;
    // The room is exactly what base64 takes.
    let _ = BASE64_STANDARD.encode_slice(bytes, &mut piece[start + 1..end]);
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{Space, Usage};

    fn embeddings(rows: usize, width: usize) -> Embeddings {
        let space = Space::builder("m", width).build().expect("a space");
        let mut random = fastrand::Rng::with_seed(3);
        let components = (0..rows * width).map(|_| random.f32() - 0.5).collect();
        Embeddings::new(rows, &space, components, Usage::ZERO).expect("rows")
    }

    fn written(mut rows: JsonRows) -> (Value, usize) {
        let (mut all, mut pieces) = (Vec::new(), 0);
        while let Some(piece) = rows.next_piece() {
            assert!(piece.len() < PIECE + 20_000, "{}", piece.len());
            (pieces, _) = (pieces + 1, all.extend(piece));
        }
        assert!(rows.is_done());
        (serde_json::from_slice(&all).expect("JSON"), pieces)
    }

    #[test]
    fn every_component_survives_in_every_form() {
        for rows in [0, 1, 3, 700] {
            let all = embeddings(rows, 33);
            let (json, pieces) = written(JsonRows::plain(all.clone(), "[", "]".to_owned()));
            let read: Vec<Vec<f32>> = serde_json::from_value(json).expect("rows");
            assert_eq!(read, all.rows().map(<[f32]>::to_vec).collect::<Vec<_>>());
            assert_eq!(pieces > 1, rows == 700);
            for encoding in [Encoding::Numbers, Encoding::Base64] {
                let (json, _) = written(JsonRows::of_openai(all.clone(), encoding, "[", "]".to_owned()));
                for (at, item) in json.as_array().expect("a list").iter().enumerate() {
                    assert_eq!((&item["object"], &item["index"]), (&Value::from("embedding"), &Value::from(at)));
                    let row: Vec<f32> = match encoding {
                        Encoding::Numbers => serde_json::from_value(item["embedding"].clone()).expect("numbers"),
                        Encoding::Base64 => {
                            let bytes =
                                BASE64_STANDARD.decode(item["embedding"].as_str().expect("base64")).expect("base64");
                            bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
                        }
                    };
                    assert_eq!(row, all.row(at));
                }
            }
        }
    }
}
