//! The code that the benchmarks share: replies as OpenAI writes them, arguments, rounds of two sides, medians.

pub mod allocations;
mod rounds;
pub mod text;

use std::{
    error::Error,
    fmt::{Display, Write as _},
    str::FromStr,
};

use base64::prelude::{BASE64_STANDARD, Engine as _};

pub use rounds::Rounds;

pub type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

pub const MODEL: &str = "text-embedding-3-small";

/// Components of the model's vectors, unless fewer are asked for.
pub const DIMENSIONS: usize = 1536;

/// The most texts that OpenAI takes in a request.
pub const TEXTS_PER_REQUEST: usize = 2048;

/// Writes a reply of OpenAI's embeddings endpoint, in OpenAI's own layout. Each row is a JSON value.
pub fn reply<R: AsRef<str>>(rows: impl IntoIterator<Item = R>, tokens: usize) -> String {
    let mut body = String::from("{\n  \"object\": \"list\",\n  \"data\": [");
    for (index, row) in rows.into_iter().enumerate() {
        body.push_str(if index == 0 { "\n" } else { ",\n" });
        body.push_str("    {\n      \"object\": \"embedding\",\n      \"index\": ");
        body.push_str(&index.to_string());
        body.push_str(",\n      \"embedding\": ");
        body.push_str(row.as_ref());
        body.push_str("\n    }");
    }
    body.push_str("\n  ],\n  \"model\": \"text-embedding-3-small\",\n  \"usage\": {\n    \"prompt_tokens\": ");
    let tokens = tokens.to_string();
    body.push_str(&tokens);
    body.push_str(",\n    \"total_tokens\": ");
    body.push_str(&tokens);
    body.push_str("\n  }\n}\n");
    body
}

/// Writes a vector as a JSON string of base64: its components as little-endian 32-bit floats.
pub fn base64_row(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|component| component.to_le_bytes()).collect();
    format!("\"{}\"", BASE64_STANDARD.encode(bytes))
}

/// Writes a vector as a JSON array, each number with the digits that an f32 needs.
pub fn float_row(vector: &[f32]) -> String {
    let mut row = String::from("[");
    for (at, component) in vector.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(row, "{}{component}", if at == 0 { "" } else { "," });
    }
    row.push(']');
    row
}

/// Makes a random vector of length 1.
pub fn unit_vector(random: &mut fastrand::Rng, dimensions: usize) -> Vec<f32> {
    let mut vector: Vec<f32> = (0..dimensions).map(|_| random.f32() * 2.0 - 1.0).collect();
    let length = vector.iter().map(|component| component * component).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|component| *component /= length);
    vector
}

/// Components that a vector by text begins with. Three are 16 characters of base64, without padding.
pub const OWN: usize = 3;

/// Returns the beginning of the vector by this text: its CRC-32 in three parts, small, and exact as f32. The rest is
/// the same for all texts, so that vectors by text cost next to nothing to make and to check.
pub fn own(text: &str) -> [f32; OWN] {
    let sum = crc32(text.as_bytes());
    [sum >> 22, (sum >> 11) & 0x7ff, sum & 0x7ff].map(|part| part as f32 / 65_536.0)
}

/// Computes the same as Python's `zlib.crc32`.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut sum = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                sum = if sum & 1 == 1 { 0xedb8_8320 ^ (sum >> 1) } else { sum >> 1 };
                bit += 1;
            }
            table[byte] = sum;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |sum, &byte| TABLE[usize::from(sum as u8 ^ byte)] ^ (sum >> 8))
}

/// The command line: `--name value` pairs, and the arguments that stand alone.
#[derive(Debug)]
pub struct Args {
    options: Vec<(String, String)>,
    pub rest: Vec<String>,
}

impl Args {
    /// Reads the command line, whose options must be among `names`.
    pub fn read(names: &[&str]) -> Result<Self> {
        let (mut options, mut rest) = (Vec::new(), Vec::new());
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.strip_prefix("--") {
                None => rest.push(argument),
                Some(name) if names.contains(&name) => {
                    let value = arguments.next().ok_or_else(|| format!("--{name} needs a value"))?;
                    options.push((name.to_owned(), value));
                }
                Some(_) => return Err(format!("{argument} is not among --{}", names.join(", --")).into()),
            }
        }
        Ok(Self { options, rest })
    }

    /// Returns the last value given for an option.
    pub fn get<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>> {
        let given = self.options.iter().rev().find(|(option, _)| option == name);
        given.map(|(_, value)| value.parse().map_err(|error| format!("--{name} {value}: {error}").into())).transpose()
    }
}

/// Returns the middle value; the mean of the two middle values if their number is even.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Returns the CPU time of a process that has one thread. The kernel keeps it in nanoseconds.
pub fn cpu_seconds() -> Result<f64> {
    let line = std::fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds: u64 = line.split(' ').next().unwrap_or_default().parse()?;
    Ok(nanoseconds as f64 / 1e9)
}
