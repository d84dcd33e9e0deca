//! Makes one vector out of a text's token vectors, for graphs that end before that.
//!
//! The same arithmetic that [`graph`](super::graph) puts into the graphs built here.

use super::folder::{Activation, Dense};
use crate::Pooling;

/// Pools `tokens` rows of `width` components; `inside` says which tokens take part.
pub(super) fn pool(mode: Pooling, hidden: &[f32], width: usize, inside: &[bool], out: &mut Vec<f32>) {
    let start = out.len();
    let rows = || hidden.chunks_exact(width).zip(inside).enumerate();
    let weighted = |weight: &dyn Fn(usize) -> f32, out: &mut Vec<f32>| -> f32 {
        out.resize(start + width, 0.0);
        let mut sum = 0.0;
        for (at, (row, _)) in rows().filter(|(_, (_, inside))| **inside) {
            sum += weight(at);
            out[start..].iter_mut().zip(row).for_each(|(total, value)| *total += weight(at) * value);
        }
        sum
    };
    let picked = |at: usize| hidden.get(at * width..(at + 1) * width).unwrap_or_default();
    match mode {
        Pooling::Mean | Pooling::MeanSqrtLen | Pooling::WeightedMean => {
            let weight = |at: usize| if mode == Pooling::WeightedMean { (at + 1) as f32 } else { 1.0 };
            let sum = weighted(&weight, out).max(1e-9);
            let divisor = if mode == Pooling::MeanSqrtLen { sum.sqrt() } else { sum };
            out[start..].iter_mut().for_each(|total| *total /= divisor);
        }
        Pooling::Cls => out.extend_from_slice(picked(inside.iter().position(|inside| *inside).unwrap_or(0))),
        Pooling::LastToken => out.extend_from_slice(picked(inside.iter().rposition(|inside| *inside).unwrap_or(0))),
        Pooling::Max => {
            out.resize(start + width, f32::MIN);
            for (_, (row, _)) in rows().filter(|(_, (_, inside))| **inside) {
                out[start..].iter_mut().zip(row).for_each(|(most, value)| *most = most.max(*value));
            }
        }
    }
    out.resize(start + width, 0.0);
}

/// Applies a Dense module to one vector.
pub(super) fn dense(dense: &Dense, activation: Activation, vector: &[f32]) -> Vec<f32> {
    let outputs = dense.weight.shape[1];
    let mut out = dense.bias.as_ref().map_or_else(|| vec![0.0; outputs], |bias| bias.data.clone());
    for (value, row) in vector.iter().zip(dense.weight.data.chunks_exact(outputs)) {
        out.iter_mut().zip(row).for_each(|(total, weight)| *total += value * weight);
    }
    out.iter_mut().for_each(|value| *value = activate(activation, *value));
    out
}

fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::Tanh => x.tanh(),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * 0.044_715_f32.mul_add(x * x * x, x);
            0.5 * x * (1.0 + inner.tanh())
        }
    }
}

/// The error function, by the rational approximation 7.1.26 of Abramowitz and Stegun in double precision: error below
/// 1.5e-7, a unit in the last place of an f32 near 1.
fn erf(x: f32) -> f32 {
    const P: f64 = 0.327_591_1;
    const A: [f64; 5] = [0.254_829_592, -0.284_496_736, 1.421_413_741, -1.453_152_027, 1.061_405_429];
    let size = f64::from(x.abs());
    let t = 1.0 / P.mul_add(size, 1.0);
    let sum = A.iter().rev().fold(0.0, |sum, a| (sum + a) * t);
    (1.0 - sum * (-size * size).exp()).copysign(f64::from(x)) as f32
}

/// Scales a vector to length 1, in double precision; a vector of no length stays.
pub(super) fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pooled(mode: Pooling, inside: &[bool]) -> Vec<f32> {
        let mut out = vec![9.0];
        pool(mode, &[1., -1., 3., 5., 5., 0.], 2, inside, &mut out);
        out.split_off(1)
    }

    #[test]
    fn pools_what_takes_part() {
        let inside = [false, true, true];
        assert_eq!(pooled(Pooling::Cls, &inside), [3., 5.]);
        assert_eq!(pooled(Pooling::LastToken, &[true, true, false]), [3., 5.]);
        assert_eq!(pooled(Pooling::Mean, &inside), [4., 2.5]);
        assert_eq!(pooled(Pooling::Max, &[true, false, true]), [5., 0.]);
        assert_eq!(pooled(Pooling::WeightedMean, &inside), [(2. * 3. + 3. * 5.) / 5., 2. * 5. / 5.]);
        assert_eq!(pooled(Pooling::MeanSqrtLen, &inside), [8. / 2_f32.sqrt(), 5. / 2_f32.sqrt()]);
        assert_eq!(pooled(Pooling::Mean, &[false; 3]), [0., 0.]);
    }

    #[test]
    fn the_error_function_is_right() {
        // Values of the tables.
        for (x, y) in [(0.0, 0.0), (0.5, 0.520_499_9), (1.0, 0.842_700_8), (2.0, 0.995_322_3), (-1.0, -0.842_700_8)] {
            assert!((erf(x) - y).abs() < 3e-7, "{x}");
        }
    }
}
