//! Holds a reply as far as it was read: decodes vectors into place, and puts the rows into order.

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurposeConfig},
};

use crate::{Normalization, Space, provider::unusable_rows::is_unusable};

/// Standard base64; padding is optional, because servers differ.
const CONFIG: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// Returns the engine that uses the processor's vector instructions.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) fn base64() -> impl Engine {
    base64::engine::Simd::standard(CONFIG)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn base64() -> impl Engine {
    base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, CONFIG)
}

/// A reply as far as it was read.
pub(in crate::provider) struct PartialReply<'b> {
    /// The strings that were taken out of the JSON, and how many of them were decoded as vectors.
    pub(super) taken: Vec<&'b [u8]>,
    pub(super) taken_decoded: usize,
    pub(super) rows: usize,
    pub(super) width: usize,
    /// Whether the space says that vectors have length 1.
    pub(super) is_normalized: bool,
    /// The rows' components, in the order of the reply.
    pub(super) components: Vec<f32>,
    /// Vectors read so far.
    pub(super) vectors: usize,
    /// The `index` of each row, in the order of the reply.
    pub(super) indices: Vec<u32>,
    pub(super) tokens: Option<u64>,
    pub(super) model: Option<String>,
    pub(super) error: Option<String>,
    /// Rows, by their place in the reply, whose vector cannot be a text's.
    pub(super) unusable: Vec<usize>,
    /// The first fault because of which no row is usable.
    pub(super) fault: Option<Fault>,
}

/// Why no row of a reply is usable.
pub(super) struct Fault {
    pub(super) message: String,
    /// Whether one text may be the cause: its vector is not there, or is not of numbers. Else replies to other texts
    /// would be as wrong.
    pub(super) is_of_one_text: bool,
}

impl<'b> PartialReply<'b> {
    pub(super) fn new(rows: usize, space: &Space, taken: Vec<&'b [u8]>) -> Self {
        let width = space.dimensions();
        Self {
            is_normalized: space.normalization() == Normalization::L2,
            taken,
            taken_decoded: 0,
            rows,
            width,
            components: Vec::new(),
            vectors: 0,
            indices: Vec::with_capacity(rows),
            tokens: None,
            model: None,
            error: None,
            unusable: Vec::new(),
            fault: None,
        }
    }

    /// Returns the string that was taken out, if this text stands for one.
    pub(super) fn taken_string(&self, text: &str) -> Option<&'b [u8]> {
        self.taken.get(text.strip_prefix('\0')?.parse::<usize>().ok()?).copied()
    }

    /// Whether all strings that were taken out are vectors, and nothing else is wrong.
    pub(super) fn is_proven(&self) -> bool {
        self.taken_decoded == self.taken.len() && self.fault.is_none() && self.error.is_none()
    }

    /// Notes a fault of the whole reply. The first fault counts.
    pub(super) fn fault(&mut self, message: impl FnOnce(usize) -> String) {
        let row = self.indices.len();
        self.fault.get_or_insert_with(|| Fault { message: message(row), is_of_one_text: false });
    }

    /// Notes a fault of which one text may be the cause.
    pub(super) fn fault_of_text(&mut self, message: impl FnOnce(usize) -> String) {
        let row = self.indices.len();
        self.fault.get_or_insert_with(|| Fault { message: message(row), is_of_one_text: true });
    }

    /// Returns the place of the next vector; `None` if there is a fault.
    pub(super) fn next_row(&mut self) -> Option<&mut [f32]> {
        let row = self.indices.len();
        if row >= self.rows {
            self.fault(|_| format!("more than {row} vectors for {row} texts"));
        } else if self.vectors != row {
            self.fault(|row| format!("row {row} has two vectors, or one before it has none"));
        }
        if self.fault.is_some() {
            return None;
        }
        // The memory is reserved at once, but a row is zeroed only when its vector comes. The decoder then writes it
        // while it is in the processor's cache.
        self.components.reserve_exact(self.rows * self.width - self.components.len());
        self.components.resize((row + 1) * self.width, 0.0);
        Some(&mut self.components[row * self.width..(row + 1) * self.width])
    }

    /// Checks the vector that was just read, while it is in the processor's cache. It is not scanned again later.
    pub(super) fn accept_vector(&mut self) {
        let start = self.vectors * self.width;
        let vector = &self.components[start..start + self.width];
        self.vectors += 1;
        if is_unusable(vector) {
            // This is a fault of one text's vector, not of the reply: the other rows stay usable.
            self.unusable.push(self.vectors - 1);
            self.components[start..start + self.width].fill(0.0);
            return;
        }
        if self.is_normalized {
            let length = sum_of_squares(vector).sqrt();
            // OpenAI's lengths are at most 3e-4 off. A vector that was shortened and not normalized again is far off.
            if (length - 1.0).abs() > 0.01 {
                self.fault(|row| {
                    format!(
                        "vector {row} has length {length:.3}, but this space's vectors have length 1: give the right \
                         space by `with_space`"
                    )
                });
            }
        }
    }

    /// Takes a vector that the server could not write. Its row stays zeros.
    pub(super) fn push_unusable(&mut self) {
        if self.next_row().is_some() {
            self.unusable.push(self.vectors);
            self.vectors += 1;
        }
    }

    /// Notes a vector of `have` components, or of more if `more` says so.
    pub(super) fn wrong_width(&mut self, have: usize, more: &str) {
        let width = self.width;
        let hint = match have {
            _ if have * 4 == width => {
                ", a quarter; the server runs another model than was declared, or it encoded the vectors twice"
            }
            _ => "; the model, its `dimensions` or the declared space differ, or the server ignores `dimensions`",
        };
        self.fault(|row| format!("vector {row} has another width: {more}{have} components, not {width}{hint}"));
    }

    pub(super) fn push_base64(&mut self, text: &[u8]) {
        let padding = text.iter().rev().take_while(|&&byte| byte == b'=').count();
        let digits = text.len() - padding;
        let bytes = digits / 4 * 3 + (digits % 4 * 3) / 4;
        if bytes != self.width * 4 {
            return match digits % 4 {
                1 => self.fault(|row| format!("vector {row} is not base64")),
                _ if !bytes.is_multiple_of(4) => {
                    self.fault(|row| format!("vector {row} has {bytes} bytes, which is not a multiple of 4"))
                }
                _ => self.wrong_width(bytes / 4, ""),
            };
        }
        let width = self.width;
        let Some(slot) = self.next_row() else { return };
        let decoded = base64().decode_slice(text, bytemuck::cast_slice_mut(slot));
        if cfg!(target_endian = "big") {
            // The reply's bytes are little-endian.
            slot.iter_mut().for_each(|number| *number = f32::from_bits(number.to_bits().swap_bytes()));
        }
        if decoded != Ok(width * 4) {
            return self.fault(|row| format!("vector {row} is not base64"));
        }
        self.accept_vector();
    }

    /// Moves each row to the place that its `index` names, by swaps, so that each row moves at most twice.
    pub(super) fn sort_by_index(&mut self) -> Result<(), String> {
        let mut seen = vec![false; self.rows];
        for &index in &self.indices {
            match seen.get_mut(index as usize) {
                None => return Err(format!("index {index}, but the request has {} texts", self.rows)),
                Some(true) => return Err(format!("two vectors with index {index}")),
                Some(slot) => *slot = true,
            }
        }
        for row in 0..self.rows {
            while self.indices[row] as usize != row {
                let other = self.indices[row] as usize;
                let (low, high) = (row.min(other), row.max(other));
                let (before, after) = self.components.split_at_mut(high * self.width);
                before[low * self.width..(low + 1) * self.width].swap_with_slice(&mut after[..self.width]);
                self.indices.swap(row, other);
            }
        }
        Ok(())
    }
}

/// Returns the sum of the squares, in a form that compilers turn into vector instructions.
fn sum_of_squares(row: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 16];
    let chunks = row.chunks_exact(16);
    let rest: f32 = chunks.remainder().iter().map(|number| number * number).sum();
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, number)| *sum += number * number);
    }
    rest + sums.iter().sum::<f32>()
}
