//! How a design meets chance: three questions, each with a law that can be written down.
//!
//! A design never sees random bits. It asks [`Chance`] whether an event of a given probability happens, which of some
//! masses is hit, or how often each entry of an alias table is. So the same design runs on Philox at a (seed, offset),
//! on any `rand` generator, and on the enumerator of `wtacrs_core::verify`, which follows every answer in turn and
//! computes the exact law.
//!
//! Every question carries the index of a pair, a stratum or a tree node. [`PhiloxChance`] answers from that index alone,
//! so its answers depend neither on order nor on threads; [`RngChance`] ignores it.

use super::alias::AliasTable;
use crate::lanes::vectorised;
use rand_core::Rng;
use wtacrs_exact::random::{self, Randomness, Stream, point_below};

/// A source of answers to the questions a design asks.
pub trait Chance {
    /// Whether an event of probability `part / whole` happens; `part` ≤ `whole`, `whole` > 0.
    fn happens(&mut self, index: u64, part: u64, whole: u64) -> bool;

    /// [`Self::happens`] for indices from `first_index` on, all at once, which may be faster. Events of probability 0 or 1,
    /// and of a `whole` of 0, which never happen, need no chance.
    fn happen_all(&mut self, first_index: u64, parts: &[u64], wholes: &[u64], happen: &mut [bool]) {
        one_by_one(first_index, parts, wholes, happen, |index, part, whole| self.happens(index, part, whole));
    }

    /// Which of the masses a uniform point falls on: i with probability `masses[i] / Σ masses`. The sum is positive.
    fn category(&mut self, index: u64, masses: &[u64]) -> usize;

    /// How often each entry of `table` is hit by `draws` independent draws, which use `first_index`, `first_index` + 1,
    /// and so on.
    fn counts(&mut self, first_index: u64, draws: u32, table: &AliasTable) -> Vec<u32>;
}

/// Asks for the events that are neither certain nor impossible, in order.
fn one_by_one(
    first_index: u64,
    parts: &[u64],
    wholes: &[u64],
    happen: &mut [bool],
    mut ask: impl FnMut(u64, u64, u64) -> bool,
) {
    for (i, (happens, (&part, &whole))) in happen.iter_mut().zip(parts.iter().zip(wholes)).enumerate() {
        *happens = if part > 0 && part < whole { ask(first_index + i as u64, part, whole) } else { part > 0 };
    }
}

/// Independent, uniform 128-bit numbers: all that the three questions need.
///
/// 128 bits, because then the probability of an event of integer mass differs from its ideal by at most 2^−128, which
/// is 2^−65 of the smallest mass there is. (An alias table spends half of them on its slot, so there it is 2^−64.)
pub trait BitSource {
    /// The number for `index`.
    fn bits(&mut self, index: u64) -> u128;

    /// [`Chance::happen_all`].
    fn events(&mut self, first_index: u64, parts: &[u64], wholes: &[u64], happen: &mut [bool]) {
        let ask = |index, part, whole| random::happens(self.bits(index), part, whole);
        one_by_one(first_index, parts, wholes, happen, ask);
    }
}

impl<B: BitSource> Chance for B {
    #[inline]
    fn happens(&mut self, index: u64, part: u64, whole: u64) -> bool {
        random::happens(self.bits(index), part, whole)
    }

    #[inline]
    fn happen_all(&mut self, first_index: u64, parts: &[u64], wholes: &[u64], happen: &mut [bool]) {
        self.events(first_index, parts, wholes, happen);
    }

    #[inline]
    fn category(&mut self, index: u64, masses: &[u64]) -> usize {
        let mut point = point_below(self.bits(index), masses.iter().sum());
        for (i, &mass) in masses.iter().enumerate() {
            if point < mass {
                return i;
            }
            point -= mass;
        }
        unreachable!("the point lies below the sum of the masses")
    }

    fn counts(&mut self, first_index: u64, draws: u32, table: &AliasTable) -> Vec<u32> {
        let mut counts = vec![0; table.len()];
        for draw in 0..draws {
            counts[table.pick(self.bits(first_index + u64::from(draw)))] += 1;
        }
        counts
    }
}

/// Bits as a pure function of (seed, offset, stream, index), by Philox4x32-10.
///
/// A plan that uses at most d draws (see [`Design::draws`](super::Design::draws)) leaves [`Randomness::next`]`(d)` to the
/// plan that follows it.
#[derive(Clone, Debug)]
pub struct PhiloxChance {
    stream: Stream,
    /// The blocks of the aligned run of counters last asked for.
    run: [u128; RUN],
    run_index: u64,
}

/// Counters computed at a time: so many that compilers make vectors of loops over them, and do not unroll them.
const RUN: usize = 32;

impl PhiloxChance {
    /// The bits from here on.
    pub fn new(randomness: Randomness) -> Self {
        Self::with_stream(randomness, 0)
    }

    /// The bits of one item of a batch, whose items share a seed and an offset.
    pub fn with_stream(randomness: Randomness, stream: u32) -> Self {
        let stream = Stream::new(randomness, stream);
        Self { stream, run: [0; RUN], run_index: u64::MAX }
    }
}

impl BitSource for PhiloxChance {
    #[inline]
    fn bits(&mut self, index: u64) -> u128 {
        let run_index = index / RUN as u64;
        if run_index != self.run_index {
            self.run_index = run_index;
            self.run = run_on_vectors(self.stream, run_index * RUN as u64);
        }
        self.run[index as usize % RUN]
    }

    fn events(&mut self, first_index: u64, parts: &[u64], wholes: &[u64], happen: &mut [bool]) {
        happen_on_vectors(self.stream, first_index, parts, wholes, happen);
    }
}

vectorised! {
    fn run_on_vectors<'a>(stream: Stream, first: u64) -> [u128; RUN] {
        stream.run(first)
    }

    fn happen_on_vectors<'a>(stream: Stream, first: u64, parts: &'a [u64], wholes: &'a [u64], happen: &'a mut [bool]) {
        let (parts, last_parts) = parts.as_chunks::<RUN>();
        let (wholes, last_wholes) = wholes.as_chunks::<RUN>();
        let (happen, last_happen) = happen.as_chunks_mut::<RUN>();
        let mut first = first;
        for ((parts, wholes), happen) in parts.iter().zip(wholes).zip(happen) {
            *happen = stream.happen_all(first, parts, wholes);
            first += RUN as u64;
        }
        if !last_happen.is_empty() {
            let (mut parts, mut wholes) = ([0; RUN], [0; RUN]);
            parts[..last_parts.len()].copy_from_slice(last_parts);
            wholes[..last_wholes.len()].copy_from_slice(last_wholes);
            last_happen.copy_from_slice(&stream.happen_all(first, &parts, &wholes)[..last_happen.len()]);
        }
    }
}

/// Bits from any `rand` generator, in the order in which they are asked for.
#[derive(Debug)]
pub struct RngChance<'a, R: ?Sized>(pub &'a mut R);

impl<R: Rng + ?Sized> BitSource for RngChance<'_, R> {
    #[inline]
    fn bits(&mut self, _index: u64) -> u128 {
        u128::from(self.0.next_u64()) << 64 | u128::from(self.0.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Constant(u128);
    impl BitSource for Constant {
        fn bits(&mut self, _: u64) -> u128 {
            self.0
        }
    }

    #[test]
    fn boundary_draws() {
        let (mut least, mut most) = (Constant(0), Constant(u128::MAX));
        for whole in [1, 2, 3, 1 << 62, (1 << 62) + 1, u64::MAX] {
            assert!(!least.happens(0, 0, whole) && !most.happens(0, 0, whole));
            assert!(least.happens(0, whole, whole) && most.happens(0, whole, whole));
            assert!(least.happens(0, 1, whole));
            assert!(!most.happens(0, whole - 1, whole));
        }
        assert_eq!(least.category(0, &[0, 3, 1, 0]), 1);
        assert_eq!(most.category(0, &[0, 3, 1, 0]), 2);
        assert_eq!(most.category(0, &[0, 1 << 61, 1, 0]), 2);
    }

    #[test]
    fn bits_depend_on_the_index_alone() {
        let mut forward = PhiloxChance::with_stream(Randomness::new(9, 5), 2);
        let ahead: Vec<u128> = (0..50).map(|i| forward.bits(i)).collect();
        let mut backward = PhiloxChance::with_stream(Randomness::new(9, 5), 2);
        for i in (0..50).rev() {
            assert_eq!(backward.bits(i), ahead[i as usize]);
        }
        assert_eq!(PhiloxChance::with_stream(Randomness::new(9, 0), 2).bits(5), ahead[0]);
        assert_ne!(PhiloxChance::with_stream(Randomness::new(9, 5), 3).bits(0), ahead[0]);
    }
}
