//! Adds pooling: one vector out of a text's token vectors.

use super::{
    names::{MASK, POOLING_MASK},
    nodes::{BOOL, FLOAT, GraphBuilder, INT64, int, ints},
};
use crate::{Pooling, provider::onnx::model_folder::ModelFolder};

/// The names that all poolings of a graph need.
struct PoolingInputs<'a> {
    /// The vectors of tokens.
    hidden: &'a str,
    /// 1 for each token that takes part, 0 for the others.
    mask: String,
    /// Whether all tokens of a text take part, so that the first one is at 0.
    mask_is_whole: bool,
    last_axis: String,
    middle_axis: String,
    /// The least divisor.
    floor: String,
    zero: String,
    one: String,
    /// The axis that positions are counted along.
    axis: String,
}

impl GraphBuilder<'_> {
    /// Adds one vector per text, of all poolings side by side.
    pub(super) fn add_pooling(&mut self, folder: &ModelFolder, hidden: &str, width: usize) -> (String, usize) {
        let mask = if folder.pool_prompt { MASK } else { POOLING_MASK };
        let inputs = PoolingInputs {
            hidden,
            mask: self.node("Cast", "", &[mask], "pool.mask", vec![int("to", FLOAT)]),
            mask_is_whole: folder.pool_prompt,
            last_axis: self.constant_ints("constant.last", &[-1]),
            middle_axis: self.constant_ints("constant.middle", &[1]),
            floor: self.constant_float("constant.floor", 1e-9),
            zero: self.constant_float("constant.zero", 0.0),
            one: self.constant_float("constant.one", 1.0),
            axis: self.constant("constant.axis", INT64, &[], &1_i64.to_le_bytes()),
        };
        let parts: Vec<String> = folder.pooling.iter().map(|&mode| self.add_one_pooling(mode, &inputs)).collect();
        let vector = match parts.as_slice() {
            [one] => one.clone(),
            all => {
                let all: Vec<&str> = all.iter().map(String::as_str).collect();
                self.node("Concat", "", &all, "pool.vector", vec![int("axis", -1)])
            }
        };
        (vector, parts.len() * width)
    }

    fn add_one_pooling(&mut self, mode: Pooling, inputs: &PoolingInputs<'_>) -> String {
        let name = |part: &str| format!("pool.{mode}.{part}");
        match mode {
            Pooling::Mean => {
                let (sum, divisor) = self.weighted_sum(inputs, &inputs.mask, &name);
                self.op("Div", &[&sum, &divisor], &name("vector"))
            }
            Pooling::MeanSqrtLen => {
                let (sum, divisor) = self.weighted_sum(inputs, &inputs.mask, &name);
                let divisor = self.op("Sqrt", &[&divisor], &name("root"));
                self.op("Div", &[&sum, &divisor], &name("vector"))
            }
            Pooling::WeightedMean => {
                let weights = self.masked_places(inputs, &name);
                let (sum, divisor) = self.weighted_sum(inputs, &weights, &name);
                self.op("Div", &[&sum, &divisor], &name("vector"))
            }
            // The first token of all.
            Pooling::Cls if inputs.mask_is_whole => {
                let first = self.constant("constant.first", INT64, &[], &0_i64.to_le_bytes());
                self.node("Gather", "", &[inputs.hidden, &first], &name("vector"), vec![int("axis", 1)])
            }
            // The first token that takes part.
            Pooling::Cls => {
                let places = self.places(inputs, &name);
                let scores = self.op("Div", &[&inputs.mask, &places], &name("scores"));
                self.pick(inputs, &scores, &name)
            }
            // The last token that takes part.
            Pooling::LastToken => {
                let scores = self.masked_places(inputs, &name);
                self.pick(inputs, &scores, &name)
            }
            Pooling::Max => {
                let inside = self.op("Unsqueeze", &[&inputs.mask, &inputs.last_axis], &name("inside"));
                let inside = self.node("Cast", "", &[&inside], &name("is_inside"), vec![int("to", BOOL)]);
                let lowest = self.constant_float("constant.lowest", f32::MIN);
                let masked = self.op("Where", &[&inside, inputs.hidden, &lowest], &name("masked"));
                let axes = vec![ints("axes", &[1]), int("keepdims", 0)];
                self.node("ReduceMax", "", &[&masked], &name("vector"), axes)
            }
        }
    }

    /// Sums token vectors by weights, and sums the weights, which are the divisor of a mean.
    fn weighted_sum(
        &mut self,
        inputs: &PoolingInputs<'_>,
        weights: &str,
        name: &dyn Fn(&str) -> String,
    ) -> (String, String) {
        let row = self.op("Unsqueeze", &[weights, &inputs.middle_axis], &name("weights"));
        let sum = self.op("MatMul", &[&row, inputs.hidden], &name("products"));
        let sum = self.op("Squeeze", &[&sum, &inputs.middle_axis], &name("sum"));
        let keep = vec![int("keepdims", 1)];
        let count = self.node("ReduceSum", "", &[weights, &inputs.last_axis], &name("count"), keep);
        (sum, self.op("Max", &[&count, &inputs.floor], &name("divisor")))
    }

    /// Numbers all tokens 1, 2, 3, .. by their place in the text.
    fn places(&mut self, inputs: &PoolingInputs<'_>, name: &dyn Fn(&str) -> String) -> String {
        let ones = self.op("Mul", &[&inputs.mask, &inputs.zero], &name("zeros"));
        let ones = self.op("Add", &[&ones, &inputs.one], &name("ones"));
        self.op("CumSum", &[&ones, &inputs.axis], &name("places"))
    }

    /// Numbers the tokens that take part by their place in the text; the others are 0.
    fn masked_places(&mut self, inputs: &PoolingInputs<'_>, name: &dyn Fn(&str) -> String) -> String {
        let places = self.places(inputs, name);
        self.op("Mul", &[&places, &inputs.mask], &name("masked_places"))
    }

    /// Picks the vector of the token with the highest score. No two scores may be equal: ONNX says that the first of
    /// equals wins, but a GPU's library promises nothing.
    fn pick(&mut self, inputs: &PoolingInputs<'_>, scores: &str, name: &dyn Fn(&str) -> String) -> String {
        let at = vec![int("axis", 1), int("keepdims", 1)];
        let at = self.node("ArgMax", "", &[scores], &name("at"), at);
        self.node("GatherND", "", &[inputs.hidden, &at], &name("vector"), vec![int("batch_dims", 1)])
    }
}
