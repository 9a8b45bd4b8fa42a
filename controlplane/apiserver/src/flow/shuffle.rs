//! Shuffle sharding: each flow is dealt a small hand of the queues, so that two flows rarely share all of theirs.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/util/shufflesharding/shufflesharding.go`.

/// The largest hand that sixty bits of a hash can deal.
pub(super) const HAND_MAX: usize = 15;

/// Calls `pick` with `hand` different numbers below `deck`, which follow from `hash` alone.
pub(super) fn deal(hash: u64, deck: usize, hand: usize, mut pick: impl FnMut(usize)) {
    let hand = hand.min(HAND_MAX).min(deck);
    let mut remainders = [0usize; HAND_MAX];
    let mut left = hash;
    for (i, remainder) in remainders.iter_mut().enumerate().take(hand) {
        let size = (deck - i) as u64;
        *remainder = usize::try_from(left % size).unwrap_or(0);
        left /= size;
    }
    for i in 0..hand {
        let mut card = remainders[i];
        for earlier in remainders[..i].iter().rev() {
            if card >= *earlier {
                card += 1;
            }
        }
        pick(card);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn hands_hold_different_cards_of_the_deck() {
        for (deck, hand) in [(1, 1), (4, 4), (16, 4), (64, 6), (128, 6), (10, 1)] {
            let mut seen = BTreeSet::new();
            for hash in (0..2000u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15)) {
                let mut cards = Vec::new();
                deal(hash, deck, hand, |card| cards.push(card));
                assert_eq!(cards.len(), hand);
                assert_eq!(cards.iter().collect::<BTreeSet<_>>().len(), hand, "{cards:?}");
                assert!(cards.iter().all(|card| *card < deck), "{cards:?} of {deck}");
                seen.extend(cards);
            }
            assert_eq!(seen.len(), deck, "every queue is dealt");
        }
    }

    #[test]
    fn the_hash_decides() {
        let hand = |hash| {
            let mut cards = Vec::new();
            deal(hash, 128, 4, |card| cards.push(card));
            cards
        };
        assert_eq!(hand(0), [0, 1, 2, 3]);
        // 5 + 7 * 128 + 5 * 128 * 127: the second five is taken, and so is the seven that it becomes.
        assert_eq!(hand(5 + 7 * 128 + 5 * 128 * 127), [5, 8, 6, 0]);
    }
}
