//! Names the inputs and the output of the graphs built here.

pub(in crate::provider::onnx) const IDS: &str = "input_ids";
pub(in crate::provider::onnx) const MASK: &str = "attention_mask";
/// The mask of the tokens that take part in pooling; an input only if that is not [`MASK`].
pub(in crate::provider::onnx) const POOLING_MASK: &str = "pooling_mask";
/// The rows of the position table; an input only in families that number tokens by what they are.
pub(in crate::provider::onnx) const POSITIONS: &str = "position_ids";
/// Each text's tokens and where its row begins, in place of [`MASK`], as ONNX Runtime's memory-efficient attention on
/// CUDA takes them; an input only in graphs for CUDA.
pub(in crate::provider::onnx) const SEGMENTS: &str = "segments";
/// The tokens of a row, twice, to slice MPNet's biases; an input only in graphs for CUDA, where the graph would compute
/// them on the CPU and copy them back.
pub(in crate::provider::onnx) const ENDS: &str = "ends";
pub(in crate::provider::onnx) const OUTPUT: &str = "sentence_embedding";
