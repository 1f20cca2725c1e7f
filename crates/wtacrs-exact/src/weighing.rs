//! The arithmetic of one pair's weight, in f64: a fixed sequence of operations, the same on every device.

/// x · y: exact, and never infinite.
#[inline]
pub const fn product(x: f32, y: f32) -> f64 {
    x as f64 * y as f64
}

/// How weights are made of a norm cache: see `Weights::from_cache`.
#[derive(Clone, Copy, Debug)]
pub struct CacheMix {
    share: f64,
    ratio: f64,
}

impl CacheMix {
    /// With λ = `share`, and the sums over warm pairs of ‖H_i‖ · ‖dZ_i‖_cached, which is positive, and of ‖H_i‖.
    #[inline]
    pub const fn new(share: f64, weight_sum: f64, norm_sum: f64) -> Self {
        Self { share, ratio: weight_sum / norm_sum }
    }

    /// (1 − λ) · ‖H_i‖ · cached + λ · ‖H_i‖ · r, and with nothing cached ‖H_i‖ · r.
    #[inline]
    pub const fn weight(&self, input_norm: f32, cached: Option<f32>) -> f64 {
        let by_input = input_norm as f64 * self.ratio;
        match cached {
            Some(norm) => (1.0 - self.share) * product(input_norm, norm) + self.share * by_input,
            None => by_input,
        }
    }
}
