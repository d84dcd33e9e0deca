//! Writes the lines of an output or error file as they are read, without ever holding the file: [`Results`].

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    api_error::ApiError,
    input_file::{InputFile, InputLine},
    line_script::Fate,
    outcome::Outcome,
    plan::LineOrder,
    vectors::{HEAD, ROW_TAIL, row_head, tail, vector},
};

/// The bytes of a piece, roughly: a piece ends with the vector that reaches them.
const PIECE: usize = 64 << 10;

/// The contents of a file of results.
#[derive(Debug)]
pub(super) struct Results {
    input: Arc<InputFile>,
    outcomes: Arc<[Outcome]>,
    /// The input's lines in the order of this file.
    lines: Vec<u32>,
    /// What stands before the brace that closes a line: `,"name":value` for each extra field.
    extra: String,
    /// Makes the ids of lines of different batches different.
    seed: String,
    pub(super) bytes: u64,
}

/// Which of the two files it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Output,
    Errors,
}

impl Results {
    /// Makes the contents of a file; `None` if no line belongs into it.
    pub(super) fn new(
        which: Which,
        input: &Arc<InputFile>,
        outcomes: &Arc<[Outcome]>,
        order: LineOrder,
        extra: &[(String, Value)],
        seed: &str,
    ) -> Option<Self> {
        let mut lines = Vec::new();
        for (line, outcome) in outcomes.iter().enumerate() {
            if outcome.is_error() == (which == Which::Errors) {
                // An input file has fewer than four billion lines.
                lines.extend(std::iter::repeat_n(line as u32, outcome.copies()));
            }
        }
        match order {
            LineOrder::AsGiven => {}
            LineOrder::Reversed => lines.reverse(),
            LineOrder::Shuffled(seed) => fastrand::Rng::with_seed(seed).shuffle(&mut lines),
        }
        let extra = extra.iter().map(|(name, value)| format!(",{}:{value}", json!(name))).collect();
        let (input, outcomes) = (input.clone(), outcomes.clone());
        let mut results = Self { input, outcomes, lines, extra, seed: seed.to_owned(), bytes: 0 };
        results.bytes = results.lines.iter().map(|&line| results.size(line)).sum();
        (!results.lines.is_empty()).then_some(results)
    }

    /// Returns the bytes of a line.
    fn size(&self, index: u32) -> u64 {
        let parts = self.parts(index);
        let line = &self.input.lines[index as usize];
        let rows: u64 =
            (0..parts.rows).map(|row| (row_head(row, parts.index_of(row)).len() + ROW_TAIL.len()) as u64).sum();
        let vector = line.encoding.size(line.dimensions) as u64;
        parts.head.len() as u64 + rows + vector * parts.rows as u64 + parts.tail.len() as u64
    }

    /// Returns what stands around the vectors of a line.
    fn parts(&self, index: u32) -> Parts {
        let line = &self.input.lines[index as usize];
        let id = blake3::hash(format!("{} {index}", self.seed).as_bytes()).to_hex();
        let (batch_id, request_id) = (&id[..32], &id[32..]);
        let head = format!(r#"{{"id":"batch_req_{batch_id}","custom_id":{},"response":"#, json!(line.custom_id));
        let end = |error: &str| format!(r#","error":{error}{}}}{}"#, self.extra, "\n");
        let refused = |status: u16, body: Value| {
            let response = json!({"status_code": status, "request_id": request_id, "body": body});
            Parts::whole(format!("{head}{response}{}", end("null")))
        };
        let failed = |code: &str, message: &str| {
            let error = json!({"code": code, "message": message});
            Parts::whole(format!("{head}null{}", end(&error.to_string())))
        };
        let answered = |is_reversed| {
            let head = format!(r#"{head}{{"status_code":200,"request_id":"{request_id}","body":{HEAD}"#);
            let tail = format!("{}}}{}", tail(self.input.model.as_deref(), line.tokens), end("null"));
            Parts { head, rows: line.texts.len(), is_reversed, tail }
        };
        match &self.outcomes[index as usize] {
            Outcome::Answered => answered(false),
            Outcome::Refused => match &line.refusal {
                Some(refusal) => refused(refusal.status, refusal.body()),
                None => answered(false),
            },
            Outcome::NoCredit => {
                let error = ApiError::no_credit();
                refused(error.status, error.body())
            }
            Outcome::Expired => {
                failed("batch_expired", "This request could not be executed before the completion window expired.")
            }
            Outcome::Cancelled => {
                failed("batch_cancelled", "This request was not executed because the batch was cancelled.")
            }
            Outcome::Scripted(fate) => match &**fate {
                Fate::Status(error) => refused(error.status, error.body()),
                Fate::Error { code, message } => failed(code, message),
                Fate::Missing | Fate::Twice => answered(false),
                Fate::ReversedRows => answered(true),
                Fate::Raw(text) => Parts::whole(format!("{text}\n")),
            },
        }
    }

    fn write_row(&self, line: &InputLine, parts: &Parts, row: usize, out: &mut Vec<u8>) {
        let index = parts.index_of(row);
        out.extend_from_slice(row_head(row, index).as_bytes());
        let text = &self.input.texts_of(line)[index];
        let model = self.input.model.as_deref().unwrap_or_default();
        line.encoding.write(&vector(model, line.dimensions, text), out);
        out.extend_from_slice(ROW_TAIL.as_bytes());
    }
}

/// A line, apart from its vectors.
struct Parts {
    head: String,
    rows: usize,
    is_reversed: bool,
    tail: String,
}

impl Parts {
    fn whole(line: String) -> Self {
        Self { head: line, rows: 0, is_reversed: false, tail: String::new() }
    }

    /// Returns the index of the text that this row belongs to.
    fn index_of(&self, row: usize) -> usize {
        if self.is_reversed { self.rows - 1 - row } else { row }
    }
}

/// Reads a file of results once, from its beginning.
pub(super) struct ResultsReader {
    results: Arc<Results>,
    /// The number of the next line.
    next: usize,
    /// The line that is being written, and the number of its next row.
    line: Option<(Parts, usize)>,
}

impl ResultsReader {
    pub(super) fn new(results: Arc<Results>) -> Self {
        Self { results, next: 0, line: None }
    }

    /// Returns the next bytes; `None` at the end.
    pub(super) fn next_piece(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(PIECE + (PIECE >> 2));
        while out.len() < PIECE {
            let (parts, row) = match self.line.take() {
                Some(line) => line,
                None => {
                    let Some(&index) = self.results.lines.get(self.next) else { break };
                    self.next += 1;
                    let parts = self.results.parts(index);
                    out.extend_from_slice(parts.head.as_bytes());
                    (parts, 0)
                }
            };
            if row < parts.rows {
                let line = &self.results.input.lines[self.results.lines[self.next - 1] as usize];
                self.results.write_row(line, &parts, row, &mut out);
                self.line = Some((parts, row + 1));
            } else {
                out.extend_from_slice(parts.tail.as_bytes());
            }
        }
        (!out.is_empty()).then_some(out)
    }
}
