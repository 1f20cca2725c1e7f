//! Weights as integers whose sum fits 62 bits, so that thresholds and draws are exact on every device.
//!
//! With n pairs and b = 62 − ⌈log2 n⌉, a weight w becomes `max(1, ⌊w · 2^s⌋)` (0 only for w = 0), where the shift s
//! puts the largest weight into [2^(b−1), 2^b). Sums of such integers do not depend on their order, and no positive
//! weight is lost, however small. Weights below 2^−b of the largest all become 1: that costs variance at most, since
//! the scales come from the integers as well.

/// Bits that the sum of all fixed-point weights fits into.
pub const SUM_BITS: u32 = 62;

/// The power of two that turns the weights of one problem into integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedPoint {
    shift: i32,
}

impl FixedPoint {
    /// The scale for `pairs` weights of which `largest` is the largest. `largest` must be finite and not negative; if it
    /// is 0, integers stand for themselves.
    #[inline]
    pub const fn new(largest: f64, pairs: u32) -> Self {
        let bits = SUM_BITS - ceil_log2(pairs);
        let (mantissa, exponent) = decompose(largest);
        if mantissa == 0 {
            return Self { shift: 0 };
        }
        let top_bit = 63 - mantissa.leading_zeros() as i32;
        Self { shift: bits as i32 - 1 - (exponent + top_bit) }
    }

    /// The integer of a weight between 0 and `largest`: `max(1, ⌊w · 2^s⌋)`, and 0 for 0.
    #[inline]
    pub const fn quantize(self, weight: f64) -> u64 {
        let (mantissa, exponent) = decompose(weight);
        if mantissa == 0 {
            return 0;
        }
        // Down from the top of the word, as no integer reaches its two highest bits.
        let top = mantissa.leading_zeros();
        let down = top as i32 - (exponent + self.shift);
        let integer = match (mantissa << top).checked_shr(down as u32) {
            Some(integer) => integer,
            None => 0,
        };
        if integer == 0 { 1 } else { integer }
    }

    /// [`Self::quantize`] of a weight's bits, by operations that vectors have; the weight is 0 or a normal number.
    #[inline(always)]
    pub const fn quantize_normal(self, bits: u64) -> u64 {
        let mantissa = bits & ((1 << 52) - 1) | 1 << 52;
        let down = (11 + 1075 - self.shift) as i64 - (bits >> 52) as i64;
        let integer = if down < 64 { mantissa << 11 >> (down & 63) } else { 0 };
        let at_least_one = if integer == 0 { 1 } else { integer };
        if bits == 0 { 0 } else { at_least_one }
    }

    /// How many octaves the largest weight of another scale, for as many pairs, lies above this one's; 0 if it lies below.
    #[inline]
    pub const fn octaves_to(self, coarser: Self) -> u32 {
        let octaves = self.shift - coarser.shift;
        if octaves > 0 { octaves as u32 } else { 0 }
    }

    /// This scale's integer of a weight as a scale so many octaves coarser makes it: ⌊⌊x⌋ / 2^d⌋ = ⌊x / 2^d⌋.
    #[inline]
    pub const fn coarsen(integer: u64, octaves: u32) -> u64 {
        let coarse = if octaves < 64 { integer >> octaves } else { 0 };
        if coarse == 0 && integer > 0 { 1 } else { coarse }
    }

    /// The weight that an integer stands for, `q · 2^−s`, rounded to f64.
    #[inline]
    pub fn value(self, integer: u64) -> f64 {
        // Two exact steps, since 2^−s alone may lie outside f64's range.
        let half = -self.shift / 2;
        integer as f64 * power_of_two(half) * power_of_two(-self.shift - half)
    }
}

/// (mantissa, exponent) with a finite, non-negative `value` = mantissa · 2^exponent.
const fn decompose(value: f64) -> (u64, i32) {
    let bits = value.to_bits();
    let biased = (bits >> 52) as i32 & 0x7ff;
    let fraction = bits & ((1 << 52) - 1);
    if biased == 0 { (fraction, -1074) } else { (fraction | 1 << 52, biased - 1075) }
}

const fn ceil_log2(n: u32) -> u32 {
    if n <= 1 { 0 } else { 32 - (n - 1).leading_zeros() }
}

fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_weight_fills_its_bits_and_the_sum_fits() {
        for pairs in [1, 2, 3, 1000, 1024, 1025, u32::MAX] {
            for largest in [f64::MIN_POSITIVE / 1e10, 5e-324, 1e-30, 1.0, 3.7, 1e30, f64::MAX] {
                let q = FixedPoint::new(largest, pairs).quantize(largest);
                let bits = SUM_BITS - ceil_log2(pairs);
                assert!(q >= 1 << (bits - 1) && q < 1 << bits, "{largest} {pairs} {q}");
                assert!(u128::from(q) * u128::from(pairs) <= 1 << SUM_BITS);
            }
        }
    }

    #[test]
    fn a_coarser_scale_needs_the_integers_alone() {
        let weights = [0.0, 5e-324, 1e-310, 1e-30, 0.1, 0.75, 1.0, 3.7, 1e10, 1e300, f64::MAX];
        for pairs in [1, 1000, u32::MAX] {
            for (at, &largest) in weights.iter().enumerate().skip(1) {
                for &coarser_largest in &weights[at..] {
                    let [fine, coarse] = [largest, coarser_largest].map(|largest| FixedPoint::new(largest, pairs));
                    let octaves = fine.octaves_to(coarse);
                    assert_eq!((octaves == 0, coarse.octaves_to(fine)), (fine == coarse, 0));
                    for &weight in &weights[..=at] {
                        let coarsened = FixedPoint::coarsen(fine.quantize(weight), octaves);
                        assert_eq!(coarsened, coarse.quantize(weight), "{weight} {largest} {coarser_largest}");
                    }
                }
            }
        }
    }

    #[test]
    fn normal_weights_need_no_count_of_zeros() {
        for pairs in [1, 2, 1000, u32::MAX] {
            for largest in [f64::MIN_POSITIVE, 1e-300, 1e-30, 1.0, 3.7, 1e30, f64::MAX] {
                let scale = FixedPoint::new(largest, pairs);
                for down in [0, 1, 2, 10, 30, 60, 61, 62, 63, 64, 65, 500, 1000] {
                    let weight = largest * power_of_two(-down);
                    for weight in [weight, weight * 0.75, weight.next_down(), 0.0] {
                        if weight == 0.0 || weight.is_normal() {
                            assert_eq!(scale.quantize_normal(weight.to_bits()), scale.quantize(weight), "{weight:e}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn powers_of_two_are_exact_and_tiny_weights_survive() {
        let fixed = FixedPoint::new(8.0, 4);
        assert_eq!(fixed.quantize(4.0) * 2, fixed.quantize(8.0));
        assert_eq!(fixed.quantize(0.0), 0);
        assert_eq!(fixed.quantize(5e-324), 1);
        assert_eq!(fixed.value(fixed.quantize(3.25)), 3.25);
        let extreme = FixedPoint::new(5e-324, 1);
        assert_eq!(extreme.value(extreme.quantize(5e-324)), 5e-324);
        let extreme = FixedPoint::new(f64::MAX, 1);
        assert_eq!(extreme.value(extreme.quantize(f64::MAX)), f64::MAX);
        assert_eq!(FixedPoint::new(0.0, 7).value(1), 1.0);
    }
}
