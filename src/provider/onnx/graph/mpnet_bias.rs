//! Adds MPNet's bias of attention by the distance of two tokens.

use super::{
    names::{ENDS, IDS},
    nodes::{GraphBuilder, GraphTarget, int},
};
use crate::{
    Result,
    provider::onnx::{family::Architecture, weights::Tensor},
};

impl GraphBuilder<'_> {
    /// Adds the bias for all positions, sliced to the length of the batch.
    pub(super) fn add_relative_bias(&mut self, arch: &Architecture) -> Result<String> {
        const BUCKETS: usize = 32;
        let rows = self.read("encoder.relative_attention_bias.weight", &[BUCKETS, arch.heads])?;
        let length = arch.length();
        let mut data = Vec::with_capacity(arch.heads * length * length);
        for head in 0..arch.heads {
            for query in 0..length {
                data.extend((0..length).map(|key| rows.data[bucket(key, query, BUCKETS) * arch.heads + head]));
            }
        }
        let table = Tensor { shape: vec![1, arch.heads, length, length], data };
        let table = self.share("relative_attention_bias", table)?;
        let ends = if self.target == GraphTarget::Cuda {
            ENDS.to_owned()
        } else {
            let size = self.op("Shape", &[IDS], "input.shape");
            let second = self.constant_ints("constant.second", &[1]);
            let length = self.node("Gather", "", &[&size, &second], "input.length", vec![int("axis", 0)]);
            self.node("Concat", "", &[&length, &length], "input.lengths", vec![int("axis", 0)])
        };
        let starts = self.constant_ints("constant.starts", &[0, 0]);
        let axes = self.constant_ints("constant.axes", &[2, 3]);
        Ok(self.op("Slice", &[&table, &starts, &ends, &axes], "relative_attention_bias.cut"))
    }
}

/// Returns the row of MPNet's bias for a pair of tokens: exact distances first, then logarithmic ones up to 128. Keys
/// before the query have the first half of the rows, keys after it the second half.
fn bucket(key: usize, query: usize, buckets: usize) -> usize {
    // In single precision, as in training: at the edges of the buckets the rounding decides.
    const FAR: f32 = 128.0;
    let half = buckets / 2;
    let side = if key > query { half } else { 0 };
    let distance = key.abs_diff(query);
    let exact = half / 2;
    let within = if distance < exact {
        distance
    } else {
        let scale = (distance as f32 / exact as f32).ln() / (FAR / exact as f32).ln();
        (exact + (scale * (half - exact) as f32) as usize).min(half - 1)
    };
    side + within
}
