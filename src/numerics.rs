//! Computes with vectors: [`cosine`].

/// Returns the cosine of two vectors of the same width; 0 if one of them is zero.
///
/// The sums are in `f64`: in `f32`, a sum of a thousand components would lose the digits in which two runs of one model
/// differ.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    debug_assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cosine_is_that_of_the_directions() {
        assert_eq!(cosine(&[3.0, 4.0], &[6.0, 8.0]), 1.0);
        assert_eq!(cosine(&[3.0, 4.0], &[-3.0, -4.0]), -1.0);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 1.0]), 0.0);
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 1.0]), 0.0);
        // The squares of these lengths do not fit into `f32`.
        assert!((cosine(&[1e30, 1e30], &[1e30, 0.0]) - 0.5_f64.sqrt()).abs() < 1e-12);
    }
}
