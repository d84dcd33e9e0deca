//! Lines of a batch's output or error file: no bytes make the reader panic, and what it accepts is what was asked for.
//!
//! The first byte of an input says which of two checks it is for. Its other meaning is told where it is taken apart.
#![no_main]

#[path = "../rows.rs"]
mod rows;

use std::sync::OnceLock;

use docvector_embed::{Embeddings, ErrorKind, Normalization, Result, Space, fuzz::batch_lines, provider::OpenAi};
use libfuzzer_sys::fuzz_target;
use rows::{bits, body, check_rows, row};

const ID: &str = "1-a";

/// The widths are 1 to this.
const WIDTHS: usize = 16;

type Line = Result<Option<(String, Result<Embeddings>)>>;

fuzz_target!(|data: &[u8]| {
    let Some((&check, input)) = data.split_first() else { return };
    match check % 2 {
        0 => anything(input),
        _ => written(input),
    }
});

/// An embedder whose vectors have this width. It is made once, because that takes longer than to read a line.
fn embedder(width: usize, is_normalized: bool) -> &'static OpenAi {
    static EMBEDDERS: [OnceLock<OpenAi>; 2 * WIDTHS] = [const { OnceLock::new() }; 2 * WIDTHS];
    EMBEDDERS[2 * (width - 1) + usize::from(is_normalized)].get_or_init(|| {
        let normalization = if is_normalized { Normalization::L2 } else { Normalization::None };
        let space = Space::builder("fuzz", width).with_normalization(normalization).build().expect("a valid space");
        let builder = OpenAi::builder("fuzz").with_base_url("http://127.0.0.1:9/v1").with_space(space);
        builder.build().expect("an embedder")
    })
}

/// Any bytes are an error, nothing, or rows of the right count and width, none of them zero or not finite. The walk and
/// the steps say the same.
///
/// Input: flags, texts, a width, the line.
fn anything(input: &[u8]) {
    let [flags, texts, width, line @ ..] = input else { return };
    let (texts, width) = (usize::from(*texts % 9), usize::from(*width) % WIDTHS + 1);
    let embedder = embedder(width, flags & 1 != 0);
    let read = |line: &[u8]| batch_lines::read(line, |id| (id == ID).then_some(texts), embedder);
    let result = read(line);
    check(&result, texts, width);

    // A field of no meaning before everything else turns the walk off.
    let Some(after) = line.strip_prefix(b"{") else { return };
    let steps = read(&[br#"{"custom_id":null,"#, after].concat());
    match (result, steps) {
        (Ok(Some((id, Ok(rows)))), Ok(Some((other_id, Ok(other_rows))))) => {
            assert_eq!((id, bits(rows.as_slice())), (other_id, bits(other_rows.as_slice())), "other rows");
            assert_eq!(rows.usage(), other_rows.usage(), "another cost");
        }
        (Ok(Some((id, Err(error)))), Ok(Some((other_id, Err(other))))) => {
            assert_eq!(id, other_id);
            assert_eq!(error.to_string(), other.to_string(), "another error");
            assert_eq!(error.total_usage(), other.total_usage(), "another cost");
        }
        (Ok(None), Ok(None)) | (Err(_), Err(_)) => {}
        (result, steps) => panic!("the walk and the steps differ: {result:?}, {steps:?}"),
    }
}

/// Holds what was read to what was asked for, and what comes with an error, too.
fn check(result: &Line, texts: usize, width: usize) {
    match result {
        Ok(None) => {}
        Ok(Some((id, Ok(rows)))) => {
            assert_eq!((id.as_str(), rows.len()), (ID, texts), "another id or count of rows");
            assert_eq!(rows.usage().requests, 1, "a line is one request");
            check_rows(rows, width);
        }
        Ok(Some((id, Err(error)))) => {
            assert_eq!(
                (id.as_str(), error.total_usage().requests),
                (ID, 1),
                "another id, or not one request: {error:?}"
            );
            assert!(error.bad_texts().iter().all(|bad| bad.index < texts), "a text is named that nobody sent");
            for partial in error.partials() {
                assert!(partial.indices().iter().all(|&index| index < texts), "a row of a text that nobody sent");
                check_rows(partial.embeddings(), width);
            }
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Protocol, "a line that is not readable: {error:?}"),
    }
}

/// Rows that are written are read again, in any order, form and place of the fields; one changed byte is an error or
/// rows.
///
/// Input: a width, a seed of the order, which rows are base64, how it is written, the place and the value of the change,
/// the components.
fn written(input: &[u8]) {
    let [width, order, encoded, how, place, change, components @ ..] = input else { return };
    let width = usize::from(*width % 8) + 1;
    let rows: Vec<Vec<f32>> = components.chunks_exact(4 * width).take(8).map(row).collect();
    let body = body(&rows, *order, how & 2 != 0, *encoded, how & 1 != 0);
    let status = if how & 4 != 0 { "\"200\"" } else { "200" };
    let response = match how & 8 != 0 {
        true => format!(r#"{{"body":{body},"status_code":{status}}}"#),
        false => format!(r#"{{"status_code":{status},"request_id":"r","body":{body}}}"#),
    };
    let line = match how & 16 != 0 {
        true => format!(r#"{{"response":{response},"error":null,"custom_id":"{ID}"}}"#),
        false => format!(r#"{{"id":"b","custom_id":"{ID}","response":{response},"error":null}}"#),
    };
    let (embedder, mut line) = (embedder(width, false), line.into_bytes());
    let read = |line: &[u8]| batch_lines::read(line, |id| (id == ID).then_some(rows.len()), embedder);

    let result = read(&line);
    check(&result, rows.len(), width);
    match result {
        Ok(Some((_, Ok(embeddings)))) => {
            assert_eq!(bits(embeddings.as_slice()), bits(&rows.concat()), "other numbers are read than were written");
            assert_eq!(embeddings.usage().exact_tokens(), Some(7), "the cost is another one");
        }
        // Only a row of zeros may be refused, and it by its index.
        Ok(Some((_, Err(error)))) => {
            let zeros = (0..rows.len()).filter(|&row| rows[row].iter().all(|&component| component == 0.0));
            let named: Vec<usize> = error.bad_texts().iter().map(|bad| bad.index).collect();
            assert!(!named.is_empty() && named == zeros.collect::<Vec<_>>(), "sound rows are refused: {error}");
        }
        other => panic!("a line is lost: {other:?}"),
    }

    let place = usize::from(*place) * line.len() / 256;
    line[place] ^= change;
    check(&read(&line), rows.len(), width);
}
