//! One pair's weight, from its norms, as wtacrs-core weighs it.

use crate::kernel::body::block::functions::{LARGEST_EXPONENT, exp};
use crate::kernel::select::{Args, SourceKind};
use wtacrs_exact::weighing::{CacheMix, product};
use wtacrs_simt::memory::load_constant;

/// All bits except the sign.
pub(super) const MAGNITUDE: u64 = !(1 << 63);

/// What a pass weighs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantity {
    /// ‖H_i‖ · ‖dZ_i‖_cached of a warm pair, and 0 of the others.
    WarmWeight,
    /// ‖H_i‖ of a warm pair, and 0 of the others.
    WarmInput,
    /// The weight.
    Weight,
}

/// Computes the weights of one problem's pairs.
#[derive(Clone, Copy)]
pub(super) struct Weigher {
    input_norms: *const f32,
    other: *const f32,
    pub(super) source: u32,
    /// λ of a cache's mix.
    share: f64,
    /// Σ ‖H_i‖ · ‖dZ_i‖_cached of warm pairs, and then its ratio to their Σ ‖H_i‖.
    pub(super) warm: f64,
    clamp: f32,
}

impl Weigher {
    #[inline(always)]
    pub(super) fn new(args: &Args, problem: u32) -> Self {
        let first = problem as usize * args.pairs as usize;
        Self {
            input_norms: args.input_norms.wrapping_add(first),
            other: args.other.wrapping_add(first),
            source: args.source,
            share: args.mix,
            warm: 0.0,
            clamp: (args.clamp as f32).min(LARGEST_EXPONENT),
        }
    }

    #[inline(always)]
    pub(super) fn is(&self, source: SourceKind) -> bool {
        self.source == source as u32
    }

    #[inline(always)]
    pub(super) fn load(&self, pair: u32) -> Norms {
        // SAFETY: one norm for each pair.
        let input = unsafe { load_constant(self.input_norms.wrapping_add(pair as usize)) };
        let other = if self.is(SourceKind::Input) {
            1.0
        } else {
            // SAFETY: one number for each pair.
            unsafe { load_constant(self.other.wrapping_add(pair as usize)) }
        };
        Norms { input, other }
    }

    /// The bits of a weight that its pair's norms make alone; nothing if one of them is invalid.
    #[inline(always)]
    pub(super) fn of_norms(&self, norms: Norms) -> Option<u64> {
        let Norms { input, other } = norms;
        let mut factor = other;
        let mut is_valid = is_norm(other);
        if self.is(SourceKind::Predicted) {
            is_valid = other.abs() < f32::INFINITY;
            factor = exp(other.max(-self.clamp).min(self.clamp));
        }
        magnitude(is_norm(input) & is_valid, product(input, factor))
    }

    /// The same of a quantity with norms from a cache.
    #[inline(always)]
    pub(super) fn of_cache(&self, quantity: Quantity, norms: Norms) -> Option<u64> {
        let Norms { input, other } = norms;
        let cached = if other < 0.0 { None } else { Some(other) };
        let value = match (quantity, cached) {
            (Quantity::Weight, _) => CacheMix::new(self.share, self.warm, 1.0).weight(input, cached),
            (_, None) => 0.0,
            (Quantity::WarmWeight, Some(norm)) => product(input, norm),
            (Quantity::WarmInput, Some(_)) => f64::from(input),
        };
        magnitude(is_norm(input) & (is_norm(other) | (other < 0.0)), value)
    }
}

/// A pair's two numbers.
#[derive(Clone, Copy)]
pub(super) struct Norms {
    input: f32,
    other: f32,
}

/// The bits without the sign of −0: their order is that of the values.
#[inline(always)]
fn magnitude(is_valid: bool, value: f64) -> Option<u64> {
    if is_valid { Some(value.to_bits() & MAGNITUDE) } else { None }
}

#[inline(always)]
fn is_norm(value: f32) -> bool {
    (0.0..f32::INFINITY).contains(&value)
}
