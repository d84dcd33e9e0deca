//! Pools token vectors into one vector per text, for `.onnx` files that leave it out, and reads which poolings a folder
//! has.
//!
//! A new pooling needs a variant of [`Pooling`], a line in [`read`]'s table and an arm in [`pool`], both here, and an
//! arm in `graph/pooling.rs`, where the graphs built here get nodes for the same arithmetic.

use std::path::Path;

use super::json_file::JsonFile;
use crate::{Pooling, Result};

/// Pools rows of `width` components, one per token; `inside` says which tokens take part.
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

/// Reads the pooling configuration in either dialect: the poolings, and whether the prompt's tokens take part.
pub(super) fn read(folder: &Path) -> Result<(Vec<Pooling>, bool)> {
    /// The fields of the older dialect, in the order in which their vectors are joined. The newer one has the names of
    /// [`Pooling`].
    const ORDER: [(Pooling, &str); 6] = [
        (Pooling::Cls, "pooling_mode_cls_token"),
        (Pooling::Max, "pooling_mode_max_tokens"),
        (Pooling::Mean, "pooling_mode_mean_tokens"),
        (Pooling::MeanSqrtLen, "pooling_mode_mean_sqrt_len_tokens"),
        (Pooling::WeightedMean, "pooling_mode_weightedmean_tokens"),
        (Pooling::LastToken, "pooling_mode_lasttoken"),
    ];
    let json = JsonFile::read(folder.join("config.json"))?;
    let mut modes = Vec::new();
    match json.get("pooling_mode") {
        Some(mode) => {
            let names = mode.as_array().map_or(std::slice::from_ref(mode), Vec::as_slice);
            for name in names {
                let mode = name.as_str().and_then(|name| name.parse().ok());
                modes.push(mode.ok_or_else(|| json.error(format!("pooling_mode {name} is not known here")))?);
            }
        }
        None => {
            for (mode, field) in ORDER {
                if json.flag(field)?.unwrap_or(false) {
                    modes.push(mode);
                }
            }
            let known = |field: &str| ORDER.iter().any(|(_, known)| *known == field);
            let unknown = json.value.as_object().and_then(|fields| {
                fields.iter().find(|(name, value)| name.starts_with("pooling_mode_") && !known(name) && **value == true)
            });
            if let Some((name, _)) = unknown {
                return Err(json.error(format!("{name} is not known here")));
            }
        }
    }
    if modes.iter().enumerate().any(|(at, mode)| modes[..at].contains(mode)) {
        return Err(json.error("names a pooling twice"));
    }
    if modes.is_empty() {
        modes.push(Pooling::Mean);
    }
    Ok((modes, json.flag("include_prompt")?.unwrap_or(true)))
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
}
