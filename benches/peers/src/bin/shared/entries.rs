//! Makes entries by their numbers: [`Entries`]. Millions of them take no memory, and each can be checked.

use std::ops::Range;

use docvector_embed::cache::{Entry, Key};

/// Random bytes, of which every value is a part. No two values begin at the same place unless there are more than this.
const POOL_BYTES: usize = 1 << 24;

/// An odd number, so that the first values of a run are far from each other in the pool.
const STRIDE: u64 = 0x9e37_79b9;

/// Entries with values of one size, as random as vectors.
pub struct Entries {
    pool: Vec<u8>,
    size: usize,
}

impl Entries {
    pub fn of_size(size: usize) -> Self {
        let mut pool = vec![0; POOL_BYTES + size];
        fastrand::Rng::with_seed(7).fill(&mut pool);
        Self { pool, size }
    }

    pub const fn size(&self) -> usize {
        self.size
    }

    pub fn value(&self, number: u64) -> &[u8] {
        let first = (number.wrapping_mul(STRIDE) % POOL_BYTES as u64) as usize;
        &self.pool[first..first + self.size]
    }

    pub fn part(&self, numbers: Range<u64>) -> Vec<Entry<'_>> {
        numbers.map(|number| Entry::new(key(number), self.value(number))).collect()
    }
}

/// Makes the key of an entry: any 32 bytes, as a hash is.
pub fn key(number: u64) -> Key {
    let mut bytes = [0; 32];
    fastrand::Rng::with_seed(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).fill(&mut bytes);
    Key::from_bytes(bytes)
}
