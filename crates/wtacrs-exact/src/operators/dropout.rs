//! Dropout's masks: functions of (seed, offset) and an element's place, so that nothing of them is saved.

use crate::philox;
use crate::random::Randomness;

/// "wm" in ASCII: masks are apart from all else that a seed draws.
const MASK_TAG: u64 = 0x776d << 16;

/// Which elements are kept, and what they count.
///
/// Element j of row i is kept if word j % 4 of block i·⌈columns/4⌉ + ⌊j/4⌋ is at least the threshold p·2³².
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mask {
    /// Words below it drop their element; 0 keeps all.
    pub threshold: u32,
    /// What a kept element is multiplied by: one over the probability that it is kept.
    pub scale: f32,
}

impl Mask {
    /// No element is dropped.
    pub const NONE: Self = Self { threshold: 0, scale: 1.0 };

    /// Elements are dropped with the probability p, rounded to a multiple of 2⁻³². None if p is not in [0, 1).
    pub const fn new(probability: f64) -> Option<Self> {
        if !(probability >= 0.0 && probability < 1.0) {
            return None;
        }
        let threshold = (probability * 4_294_967_296.0 + 0.5) as u32;
        let kept = 1.0 - threshold as f64 / 4_294_967_296.0;
        Some(Self { threshold, scale: (1.0 / kept) as f32 })
    }

    /// Whether some elements may be dropped.
    #[inline]
    pub const fn drops(self) -> bool {
        self.threshold > 0
    }

    /// What an element counts: `scale`, or 0.
    #[inline(always)]
    pub const fn factor(self, word: u32) -> f32 {
        if word < self.threshold { 0.0 } else { self.scale }
    }
}

/// Blocks of random bits of a row.
#[inline]
pub const fn blocks(columns: usize) -> u64 {
    columns.div_ceil(4) as u64
}

/// The counter of a mask's block: its low and its high words.
#[inline]
pub const fn counter(randomness: Randomness, block: u64) -> [u64; 2] {
    [randomness.offset.wrapping_add(block), MASK_TAG << 32]
}

/// The words of block `block`, for four elements.
#[inline]
pub const fn words(randomness: Randomness, block: u64) -> [u32; 4] {
    let [low, high] = counter(randomness, block);
    let seed = randomness.seed;
    philox::block(
        [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32],
        [seed as u32, (seed >> 32) as u32],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_a_factor_is_one() {
        for probability in [0.0, 0.1, 0.5, 0.9, 1e-9, 1.0 - 1e-9] {
            let mask = Mask::new(probability).expect("a probability");
            let kept = 1.0 - f64::from(mask.threshold) / 4_294_967_296.0;
            assert!((kept * f64::from(mask.scale) - 1.0).abs() < 1e-7);
            assert!((kept - (1.0 - probability)).abs() <= 2.0_f64.powi(-33));
        }
        assert_eq!(Mask::new(0.0), Some(Mask::NONE));
        assert!([-0.1, 1.0, 1.5, f64::NAN].iter().all(|&p| Mask::new(p).is_none()));
    }

    #[test]
    fn elements_are_dropped_as_often_as_asked() {
        let (mask, randomness) = (Mask::new(0.3).expect("a probability"), Randomness::new(7, 5));
        let count = (0..25_000).flat_map(|block| words(randomness, block)).filter(|&w| mask.factor(w) == 0.0).count();
        // Five standard deviations of 100 000 tosses.
        assert!((count as f64 - 30_000.0).abs() < 5.0 * (1e5_f64 * 0.21).sqrt(), "{count}");
        let drops_none = (0..1000).flat_map(|block| words(randomness, block)).all(|w| Mask::NONE.factor(w) == 1.0);
        assert!(drops_none && !Mask::NONE.drops());
    }

    #[test]
    fn counters_are_apart() {
        let expected = philox::block([12, 0, 0, 0x776d_0000], [9, 0]);
        assert_eq!(words(Randomness::new(9, 5), 7), expected);
    }
}
