//! One pair's weight, from its norms, as wtacrs-core weighs it.

use crate::kernel::body::block::functions::{LARGEST_EXPONENT, exp};
use crate::kernel::select::{Args, SourceKind};
use wtacrs_exact::weighing::{CacheMix, product};
use wtacrs_simt::memory::load_constant;

/// All bits except the sign.
pub(super) const MAGNITUDE: u64 = !(1 << 63);

/// Computes the weights of one problem's pairs.
#[derive(Clone, Copy)]
pub(super) struct Weigher {
    input_norms: *const f32,
    other: *const f32,
    pub(super) source: u32,
    pub(super) mix: CacheMix,
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
            // No pair is warm until the mix is known: cached norms weigh nothing.
            mix: CacheMix::new(0.0, 1.0, 1.0),
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

    #[inline(always)]
    pub(super) fn is_valid(&self, norms: Norms) -> bool {
        let other = if self.is(SourceKind::Predicted) { norms.other.abs() } else { norms.other };
        is_norm(norms.input) & (is_norm(other) | (self.is(SourceKind::Cached) & (other < 0.0)))
    }

    /// The weight's bits without the sign of −0: their order is the weights' order.
    #[inline(always)]
    pub(super) fn magnitude(&self, norms: Norms) -> u64 {
        self.weight(norms).to_bits() & MAGNITUDE
    }

    #[inline(always)]
    pub(super) fn weight(&self, norms: Norms) -> f64 {
        if self.is(SourceKind::Input) | self.is(SourceKind::Norms) {
            product(norms.input, norms.other)
        } else if self.is(SourceKind::Cached) {
            self.mix.weight(norms.input, norms.cached())
        } else {
            product(norms.input, exp(norms.other.max(-self.clamp).min(self.clamp)))
        }
    }
}

/// A pair's two numbers.
#[derive(Clone, Copy)]
pub(super) struct Norms {
    input: f32,
    pub(super) other: f32,
}

impl Norms {
    #[inline(always)]
    fn cached(self) -> Option<f32> {
        if self.other < 0.0 { None } else { Some(self.other) }
    }

    /// ‖H_i‖ · ‖dZ_i‖_cached and ‖H_i‖ of a warm pair.
    #[inline(always)]
    pub(super) fn warm(self) -> [f64; 2] {
        match self.cached() {
            Some(norm) => [product(self.input, norm), f64::from(self.input)],
            None => [0.0; 2],
        }
    }
}

#[inline(always)]
fn is_norm(value: f32) -> bool {
    (0.0..f32::INFINITY).contains(&value)
}
