//! Adds the layers in 8 bits: weights with one scale per column, and their inputs with one scale per token.

use super::{
    names::{IDS, MASK},
    nodes::{FUSED, GraphBuilder, UINT8, WeightData, int, ints},
    weight_bits::WeightBits,
};
use crate::{
    Result,
    provider::onnx::{
        activation::Activation,
        family::{Architecture, LayerNames},
        proto::Message,
        weights::Tensor,
    },
};

/// The outputs of GELU are above minus this.
const LEAST_GELU: f32 = 0.17;

/// The shapes that rows are brought into, and the bits of the weights that they are multiplied by.
struct Int8Layers {
    /// Texts by tokens by components, for attention.
    apart: String,
    /// One row per token, for products.
    flat: String,
    bits: WeightBits,
}

impl GraphBuilder<'_> {
    /// Adds the layers with weights and their inputs in 8 bits, on one matrix with a row for each token of all texts.
    pub(super) fn add_int8_layers(
        &mut self,
        arch: &Architecture,
        names: &LayerNames,
        x: &str,
        bias: Option<&str>,
        bits: WeightBits,
    ) -> Result<String> {
        let (layers, mut x) = self.int8_rows(x, arch.hidden, bits);
        for layer in 0..arch.layers {
            x = self.add_int8_layer(arch, names, layer, &x, bias, &layers)?;
        }
        Ok(self.op("Reshape", &[&x, &layers.apart], "int8.result"))
    }

    /// Adds the constants, and brings texts by tokens into one matrix of rows.
    fn int8_rows(&mut self, x: &str, hidden: usize, bits: WeightBits) -> (Int8Layers, String) {
        let size = self.op("Shape", &[IDS], "int8.texts_by_tokens");
        let width = self.constant_ints("int8.width", &[hidden as i64]);
        let apart = self.node("Concat", "", &[&size, &width], "int8.apart", vec![int("axis", 0)]);
        let flat = self.constant_ints("int8.flat", &[-1, hidden as i64]);
        self.constant_ints("int8.column", &[-1]);
        self.constant_float("int8.step", 1.0 / 127.0);
        self.constant_float("int8.one", 1.0);
        self.constant_float("int8.least", 1e-20);
        self.constant_float("int8.least_active", LEAST_GELU);
        self.constant("int8.middle", UINT8, &[], &[128]);
        let x = self.op("Reshape", &[x, &flat], "int8.rows");
        let rows = self.op("Shape", &[&x], "int8.shape");
        let first = self.constant_ints("int8.first", &[0]);
        let rows = self.node("Gather", "", &[&rows, &first], "int8.count", vec![int("axis", 0)]);
        let middle = Message::default().int(1, 1).int(2, UINT8).bytes(9, &[128]);
        let middle = Message::default().string(1, "value").message(5, middle).int(20, 4);
        self.node("ConstantOfShape", "", &[&rows], "int8.middles", vec![middle]);
        (Int8Layers { apart, flat, bits }, x)
    }

    fn add_int8_layer(
        &mut self,
        arch: &Architecture,
        names: &LayerNames,
        n: usize,
        x: &str,
        bias: Option<&str>,
        layers: &Int8Layers,
    ) -> Result<String> {
        let (hidden, inner) = (arch.hidden, arch.inner);
        let name = |part: &str| format!("{}.{n}.{part}", names.layer);
        let quantized = self.quantize(x, &name("qkv.input"), None);
        let [weights, biases] = self.read_qkv(names, &name, hidden)?;
        let biases = self.share(&name("qkv.bias"), biases)?;
        let products = self.int8_product(&quantized, weights, layers.bits, &name("qkv"));
        let parts = ["query", "key", "value"].map(|part| name(&format!("qkv.{part}")));
        let split = vec![int("axis", -1)];
        self.node_with_outputs("Split", "", &[&products], &[&parts[0], &parts[1], &parts[2]], split);
        let parts = parts.map(|part| self.op("Reshape", &[&part, &layers.apart], &format!("{part}.apart")));
        let mut inputs = vec![&*parts[0], &parts[1], &parts[2], &biases, MASK];
        inputs.extend(bias);
        let heads = vec![int("num_heads", arch.heads as i64)];
        let attended = self.node("MultiHeadAttention", FUSED, &inputs, &name("attention"), heads);
        let attended = self.op("Reshape", &[&attended, &layers.flat], &name("attention.rows"));

        let quantized = self.quantize(&attended, &name("attention.input"), None);
        let (weights, bias) = self.linear_apart(&name(names.attention_output), hidden, hidden)?;
        let projected = self.int8_product(&quantized, weights, layers.bits, &name(names.attention_output));
        let x = self.skip_norm(&projected, x, &bias, &name(names.attention_norm), arch)?;

        let quantized = self.quantize(&x, &name("inner.input"), None);
        let (weights, bias) = self.linear_apart(&name(names.inner), hidden, inner)?;
        let product = self.int8_product(&quantized, weights, layers.bits, &name(names.inner));
        // The tanh form is faster, and differs from GELU by far less than 8 bits do.
        let activation = match arch.activation {
            Activation::Gelu => Activation::GeluTanh,
            other => other,
        };
        let active = self.activate(activation, &product, Some(&bias), &name("inner"));
        let quantized = self.quantize(&active, &name("output.input"), Some(activation));
        let (weights, bias) = self.linear_apart(&name(names.output), inner, hidden)?;
        let product = self.int8_product(&quantized, weights, layers.bits, &name(names.output));
        self.skip_norm(&product, &x, &bias, &name(names.output_norm), arch)
    }

    /// Reads the weights of a linear layer to be quantized, inputs by outputs, and adds its bias.
    fn linear_apart(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<(Tensor, String)> {
        let weight = self.read(&format!("{name}.weight"), &[outputs, inputs])?.transposed();
        Ok((weight, self.share_read(&format!("{name}.bias"), &[outputs])?))
    }

    /// Adds rows in 8 bits around 128, and a column of their scales. `active` is the function that was applied last: it
    /// may bound the rows from below.
    fn quantize(&mut self, x: &str, name: &str, active: Option<Activation>) -> [String; 2] {
        let last = || vec![ints("axes", &[-1]), int("keepdims", 0)];
        let largest = self.node("ReduceMax", "", &[x], &format!("{name}.largest"), last());
        let size = match active {
            Some(Activation::Gelu | Activation::GeluTanh) => vec![largest, "int8.least_active".to_owned()],
            Some(Activation::Relu) => vec![largest, "int8.least".to_owned()],
            _ => {
                let lowest = self.node("ReduceMin", "", &[x], &format!("{name}.lowest"), last());
                let lowest = self.op("Neg", &[&lowest], &format!("{name}.depth"));
                vec![largest, lowest, "int8.least".to_owned()]
            }
        };
        let size: Vec<&str> = size.iter().map(String::as_str).collect();
        let size = self.op("Max", &size, &format!("{name}.size"));
        let scale = self.op("Mul", &[&size, "int8.step"], &format!("{name}.scale"));
        let rows = [x, &scale, "int8.middles"];
        let quantized = self.node("QuantizeLinear", "", &rows, &format!("{name}.quantized"), vec![int("axis", 0)]);
        [quantized, self.op("Unsqueeze", &[&scale, "int8.column"], &format!("{name}.scales"))]
    }

    /// Multiplies quantized rows by weights that are quantized here: one scale per column, rounded to the nearest.
    fn int8_product(&mut self, [rows, scales]: &[String; 2], weights: Tensor, bits: WeightBits, name: &str) -> String {
        let (columns, largest) = (weights.shape[1], bits.largest());
        let mut steps = vec![0.0_f32; columns];
        for row in weights.data.chunks_exact(columns) {
            steps.iter_mut().zip(row).for_each(|(step, weight)| *step = step.max(weight.abs()));
        }
        // A column of zeros may have any scale.
        steps.iter_mut().for_each(|step| *step = if *step > 0.0 { *step / largest } else { 1.0 });
        let quantized = weights.data.chunks_exact(columns).flat_map(|row| row.iter().zip(&steps));
        let quantized =
            quantized.map(|(weight, step)| (weight / step).round_ties_even().clamp(-largest, largest) as i8);
        let quantized = WeightData::I8(quantized.collect());
        let quantized = self.share_numbers(&format!("{name}.weight.int8"), weights.shape, quantized);
        let steps = self.share_numbers(&format!("{name}.weight.scales"), vec![columns], WeightData::F32(steps));
        let inputs = [rows, &quantized, "int8.one", &steps, "int8.middle"];
        let product = self.node("MatMulIntegerToFloat", FUSED, &inputs, &format!("{name}.whole"), Vec::new());
        self.op("Mul", &[&product, scales], &format!("{name}.product"))
    }
}
