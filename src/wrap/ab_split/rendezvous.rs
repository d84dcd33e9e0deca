//! Says which arm a key has, by weighted rendezvous hashing: [`nearest`].
//!
//! Each arm has a distance to each key: `-log2(u)`, where `u` is a hash of salt, label and key as a number from 0 to 1.
//! The distances are exponentially distributed. So the arm whose distance divided by its share is the smallest is each
//! arm with a probability of its share of all shares. If one share grows, only the quotient of its own arm shrinks: a
//! key moves to this arm or stays. All numbers are whole, so every machine has the same arms.

use std::cmp::Ordering;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Fixes which arm a key has. A change to the hashing moves the keys of every split that runs.
const CONTEXT: &str = "docvector-embed 2026-11-28 split arm v1";

/// The binary digits after the point of a distance.
const FRACTION: u32 = 32;

/// The seed of an arm's hashes of keys, made of the salt and the arm's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seed(u64);

impl Seed {
    pub(super) fn new(salt: &str, label: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        // Each part comes after its length, so that no two parts can run together.
        for part in [salt, label] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        let mut seed = [0; 8];
        hasher.finalize_xof().fill(&mut seed);
        Self(u64::from_le_bytes(seed))
    }

    /// Returns the distance of the arm from a key: above 0, at most 2 to the power of 38.
    fn distance(self, key: &[u8]) -> u64 {
        minus_log2(xxh3_64_with_seed(key, self.0))
    }
}

/// An arm, as far as it matters for a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) label: &'a str,
    pub(super) seed: Seed,
    /// At least 1.
    pub(super) share: u32,
}

/// Returns the index of the arm that the key has among `arms`; `None` if there are none.
///
/// Among fewer arms, the key has the same arm if that one is still there. The order of the arms makes no difference.
pub(super) fn nearest<'a>(key: &[u8], arms: impl Iterator<Item = Candidate<'a>>) -> Option<usize> {
    let quotients = arms.map(|arm| Quotient { distance: arm.seed.distance(key), share: arm.share, label: arm.label });
    quotients.enumerate().min_by(|(_, a), (_, b)| a.compare(b)).map(|(index, _)| index)
}

/// An arm's distance from a key, to be divided by the arm's share.
struct Quotient<'a> {
    distance: u64,
    share: u32,
    label: &'a str,
}

impl Quotient<'_> {
    /// Compares two quotients exactly. If they are equal, the labels decide.
    fn compare(&self, other: &Self) -> Ordering {
        let times = |distance: u64, share: u32| u128::from(distance) * u128::from(share);
        let (own, others) = (times(self.distance, other.share), times(other.distance, self.share));
        own.cmp(&others).then_with(|| self.label.cmp(other.label))
    }
}

/// Returns `-log2(hash / 2^64)` as a number with [`FRACTION`] binary digits after the point; above 0. The hash 0 counts
/// as 1.
fn minus_log2(hash: u64) -> u64 {
    (u64::from(u64::BITS) << FRACTION) - log2(hash.max(1))
}

/// Returns the logarithm of a number above 0, with [`FRACTION`] binary digits after the point, rounded down.
fn log2(number: u64) -> u64 {
    let whole = u64::BITS - 1 - number.leading_zeros();
    // The number is `mantissa / 2^63` times `2^whole`, and the mantissa's quotient is at least 1 and below 2.
    let mut mantissa = number << (63 - whole);
    let mut log = u64::from(whole);
    // A square has twice the logarithm. So each squaring moves the next binary digit before the point: it is 1 if the
    // square is at least 2.
    for _ in 0..FRACTION {
        let square = u128::from(mantissa) * u128::from(mantissa);
        let digit = (square >> 127) as u64;
        mantissa = (square >> (63 + digit)) as u64;
        log = log << 1 | digit;
    }
    log
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LABELS: [&str; 5] = ["openai", "own", "a", "b", "ä third"];

    /// Finds the label of the key's arm. Arms with a share of 0 get no keys.
    fn arm<'a>(salt: &str, key: &str, arms: &[(&'a str, u32)]) -> Option<&'a str> {
        let arms: Vec<_> = arms.iter().filter(|(_, share)| *share > 0).collect();
        let candidates = arms.iter().map(|&&(label, share)| Candidate { label, seed: Seed::new(salt, label), share });
        nearest(key.as_bytes(), candidates).map(|index| arms[index].0)
    }

    fn shares() -> impl Strategy<Value = Vec<(&'static str, u32)>> {
        let share = prop_oneof![Just(0), 1..4_u32, 0..=100_u32, any::<u32>(), Just(u32::MAX)];
        proptest::collection::vec(share, 2..=LABELS.len()).prop_map(|shares| LABELS.into_iter().zip(shares).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Whatever the sequence of changes: raised, an arm gives no key away and no other key moves; lowered, it gets
        /// none and no other key moves.
        #[test]
        fn a_change_of_one_share_moves_keys_only_to_it_or_only_from_it(
            mut arms in shares(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u32>()), 1..6),
            salt in ".{0,4}",
            keys in proptest::collection::vec(".{0,20}", 8),
        ) {
            for (which, share) in changes {
                let which = which.index(arms.len());
                let before: Vec<_> = keys.iter().map(|key| arm(&salt, key, &arms)).collect();
                let (label, old) = arms[which];
                arms[which].1 = share;
                for (key, before) in keys.iter().zip(before) {
                    let after = arm(&salt, key, &arms);
                    let moved_well = if share >= old { after == Some(label) } else { before == Some(label) };
                    prop_assert!(after == before || moved_well, "{before:?} to {after:?} when {label} got {share}, not {old}");
                }
            }
        }

        #[test]
        fn only_the_proportion_of_the_shares_matters_and_not_the_order_of_the_arms(
            arms in shares(), times in 1..1000_u32, key in ".{0,20}",
        ) {
            let small: Vec<_> = arms.iter().map(|&(label, share)| (label, share % 1_000_000)).collect();
            let mut other: Vec<_> = small.iter().map(|&(label, share)| (label, share * times)).collect();
            other.reverse();
            prop_assert_eq!(arm("salt", &key, &small), arm("salt", &key, &other));
        }

        #[test]
        fn a_key_keeps_its_arm_among_fewer(arms in shares(), gone in any::<prop::sample::Index>(), key in ".{0,20}") {
            let whole = arm("salt", &key, &arms);
            let mut fewer = arms.clone();
            let (label, _) = fewer.remove(gone.index(arms.len()));
            prop_assert!(arm("salt", &key, &fewer) == whole || whole == Some(label));
        }

        #[test]
        fn logarithms_ascend_and_are_right(number in any::<u64>(), shift in 0..64_u32) {
            let number = (number >> shift).max(1);
            let exact = (number as f64).log2();
            let have = log2(number) as f64 / f64::from(FRACTION).exp2();
            prop_assert!((have - exact).abs() < 1e-8, "{number}: {have} is not {exact}");
            prop_assert!(log2(number) <= log2(number.saturating_add(1)));
            prop_assert!(minus_log2(number) > 0);
        }
    }

    #[test]
    fn logarithms_of_powers_are_exact_and_every_distance_is_above_zero() {
        for power in 0..64 {
            assert_eq!(log2(1 << power), power << FRACTION);
        }
        assert_eq!((minus_log2(0), minus_log2(1)), (64 << FRACTION, 64 << FRACTION));
        assert_eq!(minus_log2(u64::MAX), 1);
        assert_eq!(minus_log2(1 << 63), 1 << FRACTION);
        assert_eq!(log2(3), 0x1_95c0_1a39);
    }

    #[test]
    fn equal_quotients_are_decided_by_the_label() {
        let quotient = |distance, share, label| Quotient { distance, share, label };
        let (a, b) = (quotient(2, 1, "a"), quotient(4, 2, "b"));
        assert_eq!((a.compare(&b), b.compare(&a)), (Ordering::Less, Ordering::Greater));
        // The largest numbers that there are.
        let (a, b) = (quotient(64 << FRACTION, 1, "a"), quotient(64 << FRACTION, u32::MAX, "b"));
        assert_eq!(a.compare(&b), Ordering::Greater);
    }

    #[test]
    fn salt_and_label_do_not_run_together() {
        assert_ne!(Seed::new("ab", "c"), Seed::new("a", "bc"));
        assert_ne!(Seed::new("", "ab"), Seed::new("ab", ""));
    }

    /// A change here moves the keys of every split that runs. The numbers are those of a second program, in Python.
    #[test]
    fn arms_stay_what_they_are() {
        assert_eq!(Seed::new("migration-2026", "openai"), Seed(796_337_628_439_800_393));
        let own = Seed::new("migration-2026", "own");
        let arms = [("openai", 1), ("own", 2), ("b", 2)];
        let long = "a key ".repeat(50);
        for (key, distance, label) in [
            ("", 3_324_592_512, "b"),
            ("a", 13_495_719_566, "openai"),
            ("library:serde", 15_696_853_372, "b"),
            ("library:react", 2_237_773_626, "openai"),
            ("Ünï", 20_609_434_700, "b"),
            ("0123456789", 1_207_677_108, "openai"),
            ("a key of more than sixteen bytes", 6_089_295_217, "b"),
            (&long, 2_708_808_613, "b"),
        ] {
            assert_eq!(
                (own.distance(key.as_bytes()), arm("migration-2026", key, &arms)),
                (distance, Some(label)),
                "{key}"
            );
        }
    }
}
