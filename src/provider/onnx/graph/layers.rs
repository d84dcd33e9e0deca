//! Adds the embeddings and the layers of the transformer, in floating point.

use super::{
    names::{IDS, POSITIONS},
    nodes::{FUSED, GraphBuilder, GraphTarget, float, int},
};
use crate::{
    Result,
    provider::onnx::{
        activation::Activation,
        family::{Architecture, LayerNames},
        weights::Tensor,
    },
};

/// The least number above 0 in fp16, 2^-24.
const LEAST_EPSILON_FP16: f32 = 5.960_464_5e-8;

impl GraphBuilder<'_> {
    /// Adds the weights of a linear layer, inputs by outputs, and its bias.
    pub(super) fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<(String, String)> {
        let weight = self.read(&format!("{name}.weight"), &[outputs, inputs])?.transposed();
        let weight = self.share(&format!("{name}.weight"), weight)?;
        Ok((weight, self.share_read(&format!("{name}.bias"), &[outputs])?))
    }

    /// Reads the weights of a layer's queries, keys and values side by side, inputs by outputs, and their biases.
    pub(super) fn read_qkv(
        &mut self,
        names: &LayerNames,
        name: &dyn Fn(&str) -> String,
        hidden: usize,
    ) -> Result<[Tensor; 2]> {
        let read_all = |builder: &mut Self, what: &str, axes: &[usize]| -> Result<Vec<Tensor>> {
            names.qkv.iter().map(|part| builder.read(&format!("{}.{what}", name(part)), axes)).collect()
        };
        let weights = read_all(self, "weight", &[hidden, hidden])?.into_iter().map(Tensor::transposed).collect();
        let biases = read_all(self, "bias", &[hidden])?;
        Ok([Tensor::side_by_side(weights), Tensor::side_by_side(biases)])
    }

    pub(super) fn norm(&mut self, name: &str, arch: &Architecture) -> Result<(String, String)> {
        let scale = self.share_read(&format!("{name}.weight"), &[arch.hidden])?;
        Ok((scale, self.share_read(&format!("{name}.bias"), &[arch.hidden])?))
    }

    /// Returns what normalizations add to the variance. The kernels of GPUs round it to fp16, where BERT's 1e-12 would
    /// be 0, and a row without variance would be divided by 0.
    const fn epsilon(&self, arch: &Architecture) -> f32 {
        match self.target {
            GraphTarget::Cuda => arch.epsilon.max(LEAST_EPSILON_FP16),
            GraphTarget::Cpu | GraphTarget::Int8(_) => arch.epsilon,
        }
    }

    /// Adds the sum of token, position and type vectors, normalized. All tokens are of type 0, so its vector is added
    /// to the position table once, here. Positions are 0, 1, 2, .. unless they are an input.
    pub(super) fn add_embeddings(&mut self, arch: &Architecture) -> Result<String> {
        let words = self.read("embeddings.word_embeddings.weight", &[arch.vocabulary, arch.hidden])?;
        let words = self.give_or_share("embeddings.word_embeddings.weight", words)?;
        let mut positions = self.read("embeddings.position_embeddings.weight", &[arch.positions, arch.hidden])?;
        if arch.token_types > 0 {
            let types = self.read("embeddings.token_type_embeddings.weight", &[arch.token_types, arch.hidden])?;
            for row in positions.data.chunks_exact_mut(arch.hidden) {
                row.iter_mut().zip(&types.data).for_each(|(position, kind)| *position += kind);
            }
        }
        let positions = self.share("embeddings.position_embeddings.weight", positions)?;
        let (scale, bias) = self.norm("embeddings.LayerNorm", arch)?;
        let mut inputs = vec![IDS, "", &words, &positions, "", &scale, &bias];
        if arch.positions_after.is_some() {
            inputs.extend(["", POSITIONS]);
        }
        let epsilon = vec![float("epsilon", self.epsilon(arch))];
        // The second output is required, and nothing uses it.
        let outputs = ["embeddings", "embeddings.mask_index"];
        self.node_with_outputs("EmbedLayerNormalization", FUSED, &inputs, &outputs, epsilon);
        Ok("embeddings".to_owned())
    }

    pub(super) fn add_layer(
        &mut self,
        arch: &Architecture,
        names: &LayerNames,
        n: usize,
        x: &str,
        bias: Option<&str>,
    ) -> Result<String> {
        let (hidden, inner) = (arch.hidden, arch.inner);
        let name = |part: &str| format!("{}.{n}.{part}", names.layer);
        let [weights, biases] = self.read_qkv(names, &name, hidden)?;
        let weights = self.share(&name("qkv.weight"), weights)?;
        let biases = self.share(&name("qkv.bias"), biases)?;
        let mut inputs = vec![x, &weights, &biases, self.mask];
        inputs.extend(bias.map(|bias| ["", bias]).into_iter().flatten());
        let heads = vec![int("num_heads", arch.heads as i64)];
        let attended = self.node("Attention", FUSED, &inputs, &name("attention"), heads);

        let (weight, bias) = self.linear(&name(names.attention_output), hidden, hidden)?;
        let projected = self.op("MatMul", &[&attended, &weight], &name("attention.projected"));
        let x = self.skip_norm(&projected, x, &bias, &name(names.attention_norm), arch)?;

        let (weight, bias) = self.linear(&name(names.inner), hidden, inner)?;
        let product = self.op("MatMul", &[&x, &weight], &name("inner.product"));
        let active = self.activate(arch.activation, &product, Some(&bias), &name("inner"));
        let (weight, bias) = self.linear(&name(names.output), inner, hidden)?;
        let product = self.op("MatMul", &[&active, &weight], &name("output.product"));
        self.skip_norm(&product, &x, &bias, &name(names.output_norm), arch)
    }

    /// Adds the bias and the layer's input, and normalizes.
    pub(super) fn skip_norm(
        &mut self,
        x: &str,
        skip: &str,
        bias: &str,
        name: &str,
        arch: &Architecture,
    ) -> Result<String> {
        let (scale, shift) = self.norm(name, arch)?;
        let epsilon = vec![float("epsilon", self.epsilon(arch))];
        let output = format!("{name}.output");
        if self.target == GraphTarget::Cuda {
            let inputs = [x, skip, &scale, &shift, bias];
            return Ok(self.node("SkipLayerNormalization", FUSED, &inputs, &output, epsilon));
        }
        // On a CPU the fused operator divides once per number, and takes three times as long as its parts.
        let biased = self.op("Add", &[x, bias], &format!("{name}.biased"));
        let sum = self.op("Add", &[&biased, skip], &format!("{name}.sum"));
        Ok(self.node("LayerNormalization", "", &[&sum, &scale, &shift], &output, epsilon))
    }

    pub(super) fn activate(&mut self, activation: Activation, x: &str, bias: Option<&str>, name: &str) -> String {
        let output = format!("{name}.active");
        match (activation, bias) {
            (Activation::Gelu, Some(bias)) => return self.node("BiasGelu", FUSED, &[x, bias], &output, Vec::new()),
            (Activation::GeluTanh, Some(bias)) => return self.node("FastGelu", FUSED, &[x, bias], &output, Vec::new()),
            _ => {}
        }
        let x = match bias {
            Some(bias) => self.op("Add", &[x, bias], &format!("{name}.biased")),
            None => x.to_owned(),
        };
        match activation {
            Activation::Identity => x,
            Activation::Gelu => self.node("Gelu", FUSED, &[&x], &output, Vec::new()),
            Activation::GeluTanh => self.node("FastGelu", FUSED, &[&x], &output, Vec::new()),
            Activation::Relu => self.op("Relu", &[&x], &output),
            Activation::Tanh => self.op("Tanh", &[&x], &output),
            Activation::Silu => {
                let gate = self.op("Sigmoid", &[&x], &format!("{name}.gate"));
                self.op("Mul", &[&x, &gate], &output)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::LEAST_EPSILON_FP16;

    #[test]
    fn the_least_epsilon_is_not_zero_in_fp16() {
        assert_eq!(f16::from_f32(LEAST_EPSILON_FP16), f16::from_bits(1));
        assert_eq!(f16::from_f32(1e-12), f16::ZERO);
    }
}
