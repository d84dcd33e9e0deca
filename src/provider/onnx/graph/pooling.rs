//! Adds pooling: one vector out of a text's token vectors.

use super::{
    names::{MASK, POOLING_MASK},
    nodes::{BOOL, FLOAT, GraphBuilder, INT64, int, ints},
};
use crate::{Pooling, provider::onnx::model_folder::ModelFolder};

impl GraphBuilder<'_> {
    /// One vector a text, of all poolings side by side.
    pub(super) fn add_pooling(&mut self, folder: &ModelFolder, hidden: &str, width: usize) -> (String, usize) {
        let mask = if folder.pool_prompt { MASK } else { POOLING_MASK };
        let mask = self.node("Cast", "", &[mask], "pool.mask", vec![int("to", FLOAT)]);
        let last_axis = self.constant_ints("constant.last", &[-1]);
        let middle_axis = self.constant_ints("constant.middle", &[1]);
        let floor = self.constant_float("constant.floor", 1e-9);
        // 1, 2, 3, .. for every text.
        let zero = self.constant_float("constant.zero", 0.0);
        let one = self.constant_float("constant.one", 1.0);
        let axis = self.constant("constant.axis", INT64, &[], &1_i64.to_le_bytes());

        let mut parts = Vec::new();
        for &mode in &folder.pooling {
            let name = |part: &str| format!("pool.{mode}.{part}");
            let sum_by = |builder: &mut Self, weights: &str| {
                let row = builder.op("Unsqueeze", &[weights, &middle_axis], &name("weights"));
                let sum = builder.op("MatMul", &[&row, hidden], &name("products"));
                let sum = builder.op("Squeeze", &[&sum, &middle_axis], &name("sum"));
                let count =
                    builder.node("ReduceSum", "", &[weights, &last_axis], &name("count"), vec![int("keepdims", 1)]);
                (sum, builder.op("Max", &[&count, &floor], &name("divisor")))
            };
            let positions = |builder: &mut Self| {
                let ones = builder.op("Mul", &[&mask, &zero], &name("zeros"));
                let ones = builder.op("Add", &[&ones, &one], &name("ones"));
                let positions = builder.op("CumSum", &[&ones, &axis], &name("positions"));
                builder.op("Mul", &[&positions, &mask], &name("masked_positions"))
            };
            let pick = |builder: &mut Self, scores: &str| {
                let at = vec![int("axis", 1), int("keepdims", 1)];
                let at = builder.node("ArgMax", "", &[scores], &name("at"), at);
                builder.node("GatherND", "", &[hidden, &at], &name("vector"), vec![int("batch_dims", 1)])
            };
            parts.push(match mode {
                Pooling::Mean => {
                    let (sum, divisor) = sum_by(self, &mask);
                    self.op("Div", &[&sum, &divisor], &name("vector"))
                }
                Pooling::MeanSqrtLen => {
                    let (sum, divisor) = sum_by(self, &mask);
                    let divisor = self.op("Sqrt", &[&divisor], &name("root"));
                    self.op("Div", &[&sum, &divisor], &name("vector"))
                }
                Pooling::WeightedMean => {
                    let weights = positions(self);
                    let (sum, divisor) = sum_by(self, &weights);
                    self.op("Div", &[&sum, &divisor], &name("vector"))
                }
                // The first and the last token that take part.
                Pooling::Cls => pick(self, &mask),
                Pooling::LastToken => {
                    let scores = positions(self);
                    pick(self, &scores)
                }
                Pooling::Max => {
                    let inside = self.op("Unsqueeze", &[&mask, &last_axis], &name("inside"));
                    let inside = self.node("Cast", "", &[&inside], &name("is_inside"), vec![int("to", BOOL)]);
                    let lowest = self.constant_float("constant.lowest", f32::MIN);
                    let masked = self.op("Where", &[&inside, hidden, &lowest], &name("masked"));
                    let axes = vec![ints("axes", &[1]), int("keepdims", 0)];
                    self.node("ReduceMax", "", &[&masked], &name("vector"), axes)
                }
            });
        }
        let vector = match parts.as_slice() {
            [one] => one.clone(),
            all => {
                let all: Vec<&str> = all.iter().map(String::as_str).collect();
                self.node("Concat", "", &all, "pool.vector", vec![int("axis", -1)])
            }
        };
        (vector, parts.len() * width)
    }
}
