//! Random bits where each element takes some: [`philox::block`](wtacrs_exact::philox::block) with products of one instruction, in
//! place of products of 64 bits, which take several.

use wtacrs_exact::philox::{KEY_STEPS, MULTIPLIERS, ROUNDS};
use wtacrs_simt::math::multiply_wide;

/// The words of a block, of the low and the high half of its counter.
#[inline(always)]
pub fn philox(seed: u64, [low, high]: [u64; 2]) -> [u32; 4] {
    let (mut a, mut b, mut c, mut d) = (low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32);
    let (mut key, mut next) = (seed as u32, (seed >> 32) as u32);
    let mut round = 0;
    while round < ROUNDS {
        let (first, second) = (multiply_wide(a, MULTIPLIERS[0]), multiply_wide(c, MULTIPLIERS[1]));
        (a, b, c, d) = ((second >> 32) as u32 ^ b ^ key, second as u32, (first >> 32) as u32 ^ d ^ next, first as u32);
        (key, next) = (key.wrapping_add(KEY_STEPS[0]), next.wrapping_add(KEY_STEPS[1]));
        round += 1;
    }
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_those_of_the_definition() {
        for i in 0..1000_u64 {
            let mix = |k: u64| (i + k).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ i << 40;
            let (seed, low, high) = (mix(1), mix(2), mix(3));
            let counter = [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32];
            let expected = wtacrs_exact::philox::block(counter, [seed as u32, (seed >> 32) as u32]);
            assert_eq!(philox(seed, [low, high]), expected);
        }
    }
}
