//! Measures how long other programs used the cores that this process wanted.

use std::fs;

use crate::statistics::share;

/// The share of time beyond which other programs spoil a measurement.
const BUSY_SHARE: f64 = 0.1;

/// How long this process's threads have run so far, and how long they waited for a core. In nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    ran: u64,
    waited: u64,
}

impl CpuTime {
    /// Reads the times, if the system gives them.
    pub(crate) fn now() -> Option<Self> {
        let mut all = Self::default();
        for entry in fs::read_dir("/proc/self/task").ok()?.flatten() {
            // A thread may have ended since the folder was read.
            let Ok(times) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let mut times = times.split_whitespace().map_while(|time| time.parse::<u64>().ok());
            all.ran += times.next()?;
            all.waited += times.next()?;
        }
        Some(all)
    }

    /// Returns the share of the time since `before` that this process waited for cores, if it spoils a measurement.
    pub(crate) fn busy_share_since(before: Option<Self>) -> Option<f64> {
        Self::share_of_others(before).filter(|&taken| taken > BUSY_SHARE)
    }

    /// Returns the share of the time since `before` that this process waited for cores.
    fn share_of_others(before: Option<Self>) -> Option<f64> {
        let (before, now) = (before?, Self::now()?);
        // Threads that have ended are no longer counted.
        let (ran, waited) = (now.ran.saturating_sub(before.ran), now.waited.saturating_sub(before.waited));
        Some(share(waited as f64, (ran + waited) as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn what_others_took_is_a_share() {
        let before = CpuTime::now();
        let sum: u64 = (0..1_000_000_u64).map(std::hint::black_box).sum();
        assert!(sum > 0 && before.is_some());
        let taken = CpuTime::share_of_others(before).expect("Linux tells");
        assert!((0.0..=1.0).contains(&taken), "{taken}");
        assert_eq!(CpuTime::share_of_others(None), None);
    }
}
