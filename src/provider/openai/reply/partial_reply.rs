//! Holds a reply as far as it is read: decodes vectors where they arrive, and puts rows into their order.

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurposeConfig},
};

use crate::{Normalization, Space, embeddings::not_finite};

/// Standard base64, with or without padding: servers differ.
const CONFIG: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// The engine with vector instructions, where the processor has them.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) fn base64() -> impl Engine {
    base64::engine::Simd::standard(CONFIG)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn base64() -> impl Engine {
    base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, CONFIG)
}

/// A reply as far as it is read.
pub(super) struct PartialReply<'b> {
    /// What was set aside, and how many of these strings were decoded.
    pub(super) taken: Vec<&'b [u8]>,
    pub(super) taken_decoded: usize,
    pub(super) rows: usize,
    pub(super) width: usize,
    /// Whether the space says that vectors have length 1.
    pub(super) is_normalized: bool,
    /// Row after row as they come.
    pub(super) components: Vec<f32>,
    /// Vectors so far.
    pub(super) vectors: usize,
    /// The `index` of each row as they come.
    pub(super) indices: Vec<u32>,
    pub(super) tokens: Option<u64>,
    pub(super) model: Option<String>,
    pub(super) error: Option<String>,
    /// Rows, as they come, whose vector is no text's.
    pub(super) unusable: Vec<usize>,
    /// The first thing that is wrong with the whole.
    pub(super) fault: Option<String>,
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

    /// The string that this one stands for, if it does.
    pub(super) fn taken_string(&self, text: &str) -> Option<&'b [u8]> {
        self.taken.get(text.strip_prefix('\0')?.parse::<usize>().ok()?).copied()
    }

    /// Whether everything that was set aside is a vector, and nothing else is wrong.
    pub(super) fn is_proven(&self) -> bool {
        self.taken_decoded == self.taken.len() && self.fault.is_none() && self.error.is_none()
    }

    pub(super) fn fault(&mut self, message: impl FnOnce(usize) -> String) {
        let row = self.indices.len();
        self.fault.get_or_insert_with(|| message(row));
    }

    /// Where the next vector goes; `None` where it has no place.
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
        // All the memory at once, but each row of it touched only when its vector comes, so that it is touched once.
        self.components.reserve_exact(self.rows * self.width - self.components.len());
        self.components.resize((row + 1) * self.width, 0.0);
        Some(&mut self.components[row * self.width..(row + 1) * self.width])
    }

    /// Looks at the vector that was just read, while it is near the processor.
    pub(super) fn accept_vector(&mut self) {
        let start = self.vectors * self.width;
        let vector = &self.components[start..start + self.width];
        self.vectors += 1;
        if not_finite(vector).is_some() || vector.iter().all(|&component| component == 0.0) {
            // It says something about its text, and nothing about the others.
            self.unusable.push(self.vectors - 1);
            self.components[start..start + self.width].fill(0.0);
            return;
        }
        if self.is_normalized {
            let length = sum_of_squares(vector).sqrt();
            // OpenAI's are 3e-4 off at most; one that was shortened and not scaled again is far off.
            if (length - 1.0).abs() > 0.01 {
                self.fault(|row| {
                    format!("vector {row} has length {length:.3}, this space has length 1: name another one with `with_space`")
                });
            }
        }
    }

    pub(super) fn wrong_width(&mut self, have: usize) {
        let width = self.width;
        let hint = match have {
            _ if have * 4 == width => {
                ", a quarter: another model answers than was declared, or the server encoded what was encoded already"
            }
            _ => ": the model, its `dimensions` or the declared space differ, or the server ignores `dimensions`",
        };
        self.fault(|row| format!("vector {row} has {have} components, not {width}{hint}"));
    }

    pub(super) fn push_base64(&mut self, text: &[u8]) {
        let padding = text.iter().rev().take_while(|&&byte| byte == b'=').count();
        let digits = text.len() - padding;
        let bytes = digits / 4 * 3 + (digits % 4 * 3) / 4;
        if bytes != self.width * 4 {
            return match digits % 4 {
                1 => self.fault(|row| format!("vector {row} is not base64")),
                _ if !bytes.is_multiple_of(4) => {
                    self.fault(|row| format!("vector {row} has {bytes} bytes, not whole numbers"))
                }
                _ => self.wrong_width(bytes / 4),
            };
        }
        let width = self.width;
        let Some(slot) = self.next_row() else { return };
        let decoded = base64().decode_slice(text, bytemuck::cast_slice_mut(slot));
        if cfg!(target_endian = "big") {
            // The wire's order is the other one.
            slot.iter_mut().for_each(|number| *number = f32::from_bits(number.to_bits().swap_bytes()));
        }
        if decoded != Ok(width * 4) {
            return self.fault(|row| format!("vector {row} is not base64"));
        }
        self.accept_vector();
    }

    /// Puts row `r` at the place that its `index` names, by swapping rows.
    pub(super) fn sort_by_index(&mut self) -> Result<(), String> {
        let mut seen = vec![false; self.rows];
        for &index in &self.indices {
            match seen.get_mut(index as usize) {
                None => return Err(format!("the index {index} for {} texts", self.rows)),
                Some(true) => return Err(format!("two vectors of the index {index}")),
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

/// The sum of the squares, in a form that compilers turn into vector instructions.
fn sum_of_squares(row: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 16];
    let chunks = row.chunks_exact(16);
    let rest: f32 = chunks.remainder().iter().map(|number| number * number).sum();
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, number)| *sum += number * number);
    }
    rest + sums.iter().sum::<f32>()
}
