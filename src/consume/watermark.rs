//! The contiguous settled watermark of one partition: the offset up to which everything is done.

use std::collections::VecDeque;

/// Follows the records of one partition from taken to settled.
///
/// Offsets may have gaps (compaction, transaction markers), so what counts is the order in which records were taken.
#[derive(Debug, Default)]
pub struct Watermark {
    /// Taken offsets in ascending order, with whether each is settled; the front is never settled.
    in_hand: VecDeque<(i64, bool)>,
    /// The offset to commit: one past the last settled record of the contiguous run.
    position: Option<i64>,
}

impl Watermark {
    /// Takes the next record. Offsets only ascend within an assignment; a repeated one is ignored.
    pub fn take(&mut self, offset: i64) -> bool {
        if self.in_hand.back().is_some_and(|(last, _)| *last >= offset)
            || self.position.is_some_and(|position| offset < position)
        {
            return false;
        }
        self.in_hand.push_back((offset, false));
        true
    }

    /// Settles a record; settling it twice, or one never taken, changes nothing.
    pub fn settle(&mut self, offset: i64) {
        if let Some(front) = self.in_hand.front_mut().filter(|(first, _)| *first == offset) {
            front.1 = true;
        } else {
            let Ok(index) = self.in_hand.binary_search_by_key(&offset, |(o, _)| *o) else { return };
            self.in_hand[index].1 = true;
        }
        while let Some((offset, true)) = self.in_hand.front() {
            self.position = Some(offset + 1);
            self.in_hand.pop_front();
        }
    }

    /// The offset to commit if these were settled as well; they are in ascending order.
    pub fn position_with(&self, offsets: impl IntoIterator<Item = i64>) -> Option<i64> {
        let mut offsets = offsets.into_iter().peekable();
        let mut position = self.position;
        for (offset, settled) in &self.in_hand {
            while offsets.next_if(|other| other < offset).is_some() {}
            if !settled && offsets.next_if_eq(offset).is_none() {
                break;
            }
            position = Some(offset + 1);
        }
        position
    }

    /// The offset to commit; it never goes back. `None` until something is settled.
    pub fn position(&self) -> Option<i64> {
        self.position
    }

    /// The oldest record that is not settled.
    pub fn head(&self) -> Option<i64> {
        self.in_hand.front().map(|(offset, _)| *offset)
    }

    /// Records taken and not yet behind the watermark.
    pub fn in_hand(&self) -> usize {
        self.in_hand.len()
    }

    /// True when everything taken is settled.
    pub fn is_idle(&self) -> bool {
        self.in_hand.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn one_blocked_record_holds_the_position() {
        let mut watermark = Watermark::default();
        for offset in 0..10 {
            assert!(watermark.take(offset));
        }
        for offset in [4, 5, 6, 7, 8, 9, 0, 1, 2] {
            watermark.settle(offset);
        }
        assert_eq!(watermark.position(), Some(3), "3 is redelivered after a crash");
        watermark.settle(3);
        assert_eq!(watermark.position(), Some(10));
        assert!(watermark.is_idle());
    }

    proptest! {
        #[test]
        fn never_passes_an_unsettled_record_and_never_goes_back(
            gaps in prop::collection::vec(1i64..4, 1..40),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..80),
        ) {
            let mut watermark = Watermark::default();
            let mut offset = 0;
            let offsets: Vec<i64> = gaps.iter().map(|gap| { offset += gap; offset }).collect();
            for offset in &offsets {
                prop_assert!(watermark.take(*offset));
            }
            let mut settled = BTreeSet::new();
            let mut last = None;
            for index in order {
                let offset = *index.get(&offsets);
                watermark.settle(offset);
                settled.insert(offset);
                let expected = offsets.iter().take_while(|o| settled.contains(o)).last().map(|o| o + 1);
                prop_assert_eq!(watermark.position(), expected);
                let next = offsets.iter().copied().filter(|o| !settled.contains(o)).take(2).collect::<Vec<_>>();
                let mut then = settled.clone();
                then.extend(&next);
                let expected = offsets.iter().take_while(|o| then.contains(o)).last().map(|o| o + 1);
                prop_assert_eq!(watermark.position_with(next), expected);
                prop_assert!(watermark.position() >= last);
                last = watermark.position();
            }
        }
    }
}
