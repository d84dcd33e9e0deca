//! Keeps the rows that are nearest to a vector: [`Nearest`].

use std::{cmp::Ordering, collections::BinaryHeap};

/// The nearest rows so far, at most so many.
pub(crate) struct Nearest<T> {
    at_most: usize,
    /// The farthest of them on top.
    rows: BinaryHeap<Scored<T>>,
}

/// A row with its score. The order is that of the heap: the lowest score is the greatest.
pub(crate) struct Scored<T> {
    pub(crate) score: f32,
    /// The place of the row in its file. Of equal scores, the first is nearer.
    pub(crate) place: u64,
    pub(crate) row: T,
}

impl<T> Nearest<T> {
    pub(crate) const fn new(at_most: usize) -> Self {
        Self { at_most, rows: BinaryHeap::new() }
    }

    /// Keeps a row if it is one of the nearest. `row` is called only then.
    pub(crate) fn offer(&mut self, score: f32, place: u64, row: impl FnOnce() -> T) {
        if self.rows.len() < self.at_most {
            self.rows.push(Scored { score, place, row: row() });
        } else if let Some(mut farthest) = self.rows.peek_mut()
            && score.total_cmp(&farthest.score).is_gt()
        {
            *farthest = Scored { score, place, row: row() };
        }
    }

    /// Returns the rows, the nearest first.
    pub(crate) fn into_sorted(self) -> Vec<Scored<T>> {
        self.rows.into_sorted_vec()
    }
}

impl<T> Ord for Scored<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.place.cmp(&other.place))
    }
}

impl<T> PartialOrd for Scored<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Scored<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Scored<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_are_kept_in_order() {
        let mut nearest = Nearest::new(3);
        let scores = [0.1, 0.9, -1.0, 0.5, 0.9, 0.2];
        scores.iter().zip(0..).for_each(|(&score, place)| nearest.offer(score, place, || place));
        let kept: Vec<(f32, u64)> = nearest.into_sorted().iter().map(|scored| (scored.score, scored.row)).collect();
        assert_eq!(kept, [(0.9, 1), (0.9, 4), (0.5, 3)]);
    }
}
