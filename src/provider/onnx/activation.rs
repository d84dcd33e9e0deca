//! Knows the activation functions of models: their names in files, and their arithmetic.

/// An activation function by the name that configurations use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    Identity,
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
    Relu,
    Silu,
    Tanh,
}

impl Activation {
    /// Returns a name of our own, for fingerprints.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu-tanh",
            Self::Relu => "relu",
            Self::Silu => "silu",
            Self::Tanh => "tanh",
        }
    }

    /// Reads a name of `transformers` (`gelu_new`) or the last part of a torch class path (`GELU`).
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "gelu" | "gelu_python" | "GELU" | "GELUActivation" => Self::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "NewGELUActivation" => Self::GeluTanh,
            "relu" | "ReLU" => Self::Relu,
            "silu" | "swish" | "SiLU" => Self::Silu,
            "tanh" | "Tanh" => Self::Tanh,
            "Identity" | "linear" => Self::Identity,
            _ => return None,
        })
    }

    /// Applies the function to one number.
    pub(super) fn apply(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Relu => x.max(0.0),
            Self::Tanh => x.tanh(),
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::Gelu => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
            Self::GeluTanh => {
                let inner = (2.0 / std::f32::consts::PI).sqrt() * 0.044_715_f32.mul_add(x * x * x, x);
                0.5 * x * (1.0 + inner.tanh())
            }
        }
    }
}

/// Computes the error function, by the rational approximation 7.1.26 of Abramowitz and Stegun in double precision:
/// error below 1.5e-7, a unit in the last place of an f32 near 1.
fn erf(x: f32) -> f32 {
    const P: f64 = 0.327_591_1;
    const A: [f64; 5] = [0.254_829_592, -0.284_496_736, 1.421_413_741, -1.453_152_027, 1.061_405_429];
    let size = f64::from(x.abs());
    let t = 1.0 / P.mul_add(size, 1.0);
    let sum = A.iter().rev().fold(0.0, |sum, a| (sum + a) * t);
    (1.0 - sum * (-size * size).exp()).copysign(f64::from(x)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_function_is_right() {
        // Values of the tables.
        for (x, y) in [(0.0, 0.0), (0.5, 0.520_499_9), (1.0, 0.842_700_8), (2.0, 0.995_322_3), (-1.0, -0.842_700_8)] {
            assert!((erf(x) - y).abs() < 3e-7, "{x}");
        }
    }
}
