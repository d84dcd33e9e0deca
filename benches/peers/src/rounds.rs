//! Measures two sides in turns: [`Rounds`].

use crate::{Result, median};

/// The seconds that two sides took, round by round.
#[derive(Default)]
pub struct Rounds {
    pub ours: Vec<f64>,
    pub peers: Vec<f64>,
}

impl Rounds {
    /// Lets two sides take turns with the state that they share; they swap places in each round. A first round warms
    /// up.
    pub fn run<S>(
        rounds: usize,
        shared: &mut S,
        mut ours: impl FnMut(&mut S) -> Result<f64>,
        mut peers: impl FnMut(&mut S) -> Result<f64>,
    ) -> Result<Self> {
        let mut times = Self::default();
        for round in 0..=rounds {
            let (our_time, peer_time) = if round % 2 == 0 {
                let first = ours(shared)?;
                (first, peers(shared)?)
            } else {
                let first = peers(shared)?;
                (ours(shared)?, first)
            };
            if round > 0 {
                times.ours.push(our_time);
                times.peers.push(peer_time);
            }
        }
        Ok(times)
    }

    /// Our speed divided by the peer's: the median of the rounds, the least and the most.
    pub fn ratio(&self) -> (f64, f64, f64) {
        let ratios: Vec<f64> = self.peers.iter().zip(&self.ours).map(|(peer, ours)| peer / ours).collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        (median(&ratios), least, most)
    }
}
