//! Chooses the bits of weights that are quantized while loading: [`WeightBits`].

use std::fmt;

/// The bits of a quantized weight.
///
/// A product of an 8-bit input with an 8-bit weight needs 16 bits. AVX2 adds two of them in 16 bits and cuts off what
/// does not fit, so it needs weights of 7 bits. Later instructions add four of them in 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::provider::onnx) enum WeightBits {
    /// -64 to 64: exact products on every CPU.
    Seven,
    /// -127 to 127: half the error, on CPUs that add in 32 bits.
    Eight,
}

impl WeightBits {
    /// Returns the most bits whose products this CPU adds exactly.
    fn of_this_cpu() -> Self {
        if adds_in_32_bits() { Self::Eight } else { Self::Seven }
    }

    /// Returns this number of bits, by default the most that this CPU takes.
    pub(in crate::provider::onnx) fn choose(asked: Option<u8>) -> Result<Self, String> {
        match (asked, Self::of_this_cpu()) {
            (None, most) => Ok(most),
            (Some(7), _) => Ok(Self::Seven),
            (Some(8), Self::Eight) => Ok(Self::Eight),
            (Some(8), Self::Seven) => Err(
                "with_weight_bits (--weight-bits) is 8, but this CPU does not add products of 8-bit weights exactly (it \
                 lacks AVX-VNNI and AVX-512 VNNI, or dot products): set 7"
                    .to_owned(),
            ),
            (Some(other), _) => Err(format!("with_weight_bits (--weight-bits) is {other}: set 7 or 8")),
        }
    }

    /// Returns the largest quantized weight.
    pub(super) const fn largest(self) -> f32 {
        match self {
            Self::Seven => 64.0,
            Self::Eight => 127.0,
        }
    }
}

impl fmt::Display for WeightBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seven => "7",
            Self::Eight => "8",
        })
    }
}

/// Whether the CPU has an instruction that multiplies 8-bit numbers and adds the products in 32 bits, in a form that
/// ONNX Runtime uses.
fn adds_in_32_bits() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avxvnni")
        || (std::arch::is_x86_feature_detected!("avx512vnni") && std::arch::is_x86_feature_detected!("avx512vl"));
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("dotprod");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use ort::session::{RunOptions, Session, SessionInputValue};

    use super::*;
    use crate::provider::onnx::{
        graph::nodes::{FLOAT, FUSED, INT8, IR_VERSION, OPSET, UINT8},
        library,
        proto::Message,
    };

    #[test]
    fn other_numbers_are_refused() {
        assert_eq!(WeightBits::choose(Some(7)), Ok(WeightBits::Seven));
        assert_eq!(WeightBits::choose(None), Ok(WeightBits::of_this_cpu()));
        assert_eq!(WeightBits::choose(Some(8)).is_ok(), WeightBits::of_this_cpu() == WeightBits::Eight);
        for bits in [0, 4, 9, 255] {
            assert!(WeightBits::choose(Some(bits)).is_err_and(|message| message.contains("set 7 or 8")), "{bits}");
        }
    }

    /// ONNX Runtime's product of the largest rows with the largest weights, where AVX2 would cut off sums of 8 bits.
    #[test]
    fn the_largest_products_are_exact() {
        const ROWS: usize = 7;
        const INNER: usize = 96;
        const COLUMNS: usize = 40;
        let (_, environment) = library::load(None).expect("the library");
        let bits = WeightBits::of_this_cpu();
        for (row, weight) in [(255, bits.largest()), (255, -bits.largest()), (0, bits.largest()), (0, -bits.largest())]
        {
            let tensor = |name: &str, kind: i64, dims: &[i64], bytes: &[u8]| {
                let dims = dims.iter().fold(Message::default(), |message, &dim| message.int(1, dim));
                dims.int(2, kind).string(8, name).bytes(9, bytes)
            };
            let node = ["rows", "weights", "one", "steps", "middle"]
                .iter()
                .fold(Message::default(), |message, input| message.string(1, input))
                .string(2, "sums")
                .string(4, "MatMulIntegerToFloat")
                .string(7, FUSED);
            let steps: Vec<u8> = std::iter::repeat_n(1.0_f32.to_le_bytes(), COLUMNS).flatten().collect();
            let graph = Message::default().message(1, node).string(2, "sums").messages(
                5,
                [
                    tensor("rows", UINT8, &[ROWS as i64, INNER as i64], &[row; ROWS * INNER]),
                    tensor("weights", INT8, &[INNER as i64, COLUMNS as i64], &[weight as i8 as u8; INNER * COLUMNS]),
                    tensor("one", FLOAT, &[], &1.0_f32.to_le_bytes()),
                    tensor("steps", FLOAT, &[COLUMNS as i64], &steps),
                    tensor("middle", UINT8, &[], &[128]),
                ],
            );
            let output = Message::default().message(1, Message::default().int(1, FLOAT));
            let graph = graph.message(12, Message::default().string(1, "sums").message(2, output));
            let opset = |domain: &str, version: i64| Message::default().string(1, domain).int(2, version);
            let opsets = [opset("", OPSET), opset(FUSED, 1)];
            let model = Message::default().int(1, IR_VERSION).message(7, graph).messages(8, opsets);
            let mut session: Session = crate::provider::onnx::device::Device::Cpu
                .session(&environment, false)
                .expect("a session")
                .commit_from_memory(model.as_bytes())
                .expect("a model");
            let options = RunOptions::new().expect("options");
            let inputs: Vec<(&str, SessionInputValue<'_>)> = Vec::new();
            let outputs = session.run_with_options(inputs, &options).expect("runs");
            let (_, sums) = outputs["sums"].try_extract_tensor::<f32>().expect("numbers");
            let right = INNER as f32 * (f32::from(row) - 128.0) * weight;
            assert_eq!(sums.len(), ROWS * COLUMNS);
            assert!(sums.iter().all(|&sum| sum == right), "{row} by {weight}: {:?} is not {right}", sums[0]);
        }
    }
}
