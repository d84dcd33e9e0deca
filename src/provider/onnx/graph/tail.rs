//! Adds the modules that follow pooling: Dense and Normalize.

use super::nodes::{GraphBuilder, int, ints};
use crate::{Result, provider::onnx::modules::TailModule};

impl GraphBuilder<'_> {
    pub(super) fn add_tail_module(
        &mut self,
        at: usize,
        step: &TailModule,
        x: String,
        width: usize,
        facts: &mut String,
    ) -> Result<(String, usize)> {
        let name = format!("tail.{at}");
        match step {
            TailModule::Normalize => {
                facts.push_str(" normalize");
                let axes = vec![ints("axes", &[-1]), int("keepdims", 1)];
                let length = self.node("ReduceL2", "", &[&x], &format!("{name}.length"), axes);
                let floor = self.constant_float(&format!("{name}.floor"), 1e-12);
                let length = self.op("Max", &[&length, &floor], &format!("{name}.divisor"));
                Ok((self.op("Div", &[&x, &length], &format!("{name}.unit")), width))
            }
            TailModule::Dense { activation, .. } => {
                let dense = step.read_dense(width)?;
                facts.push_str(&format!(" dense {} {}", activation.as_str(), dense.hash));
                let outputs = dense.weight.shape[1];
                let weight = self.share(&format!("{name}.weight"), dense.weight)?;
                let bias = dense.bias.map(|bias| self.share(&format!("{name}.bias"), bias)).transpose()?;
                let product = self.op("MatMul", &[&x, &weight], &format!("{name}.product"));
                Ok((self.activate(*activation, &product, bias.as_deref(), &name), outputs))
            }
        }
    }
}
