//! Weights → threshold, winners, draws from the tail → ascending indices and scales, in one launch.

/// Where weights come from: the value of [`Args::source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Source {
    /// w = input_norms.
    Input = 0,
    /// w = input_norms · other, `other` being norms of dZ.
    Norms = 1,
    /// `other` are norms that a cache remembers, negative where it does not: see `Weights::from_cache` of wtacrs-core.
    Cached = 2,
    /// `other` are log-norms up to a constant, as `row_norms` makes them of a predictor's θ: w = input_norms · e^guess.
    Predicted = 3,
}

/// Which rule selects: the value of [`Args::design`]; the designs of wtacrs-core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Design {
    /// `Uniform`.
    Uniform = 0,
    /// `Crs`.
    Crs = 1,
    /// `TopK`.
    TopK = 2,
    /// `WtaIid`.
    WtaIid = 3,
    /// `WtaStratified`.
    WtaStratified = 4,
    /// `WtaPivotal`.
    WtaPivotal = 5,
}

/// What a launch is given. One grid.z for each problem of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// batch × pairs norms ‖X_i‖.
    pub input_norms: *const f32,
    /// batch × pairs, by `source`; null for [`Source::Input`].
    pub other: *const f32,
    /// A [`Source`].
    pub source: u32,
    /// A [`Design`].
    pub design: u32,
    /// Pairs of each problem.
    pub pairs: u32,
    /// Pairs to keep: 1 ≤ budget ≤ pairs.
    pub budget: u32,
    /// λ of [`Source::Cached`].
    pub mix: f64,
    /// [`Source::Predicted`]: guesses stay within e^±clamp of their geometric mean.
    pub clamp: f64,
    /// The generator's key.
    pub seed: u64,
    /// The first block of its counter.
    pub offset: u64,
    /// A number in device memory that is added to `offset`, so that a captured graph can be replayed with new bits; or
    /// null.
    pub further_offset: *const u64,
    /// The stream of the batch's first problem.
    pub first_stream: u32,
    /// From one problem's stream to the next.
    pub stream_step: u32,
    /// batch × budget indices, ascending; entries from `count` on are not written.
    pub indices: *mut u32,
    /// batch × budget scales 1/π, as above.
    pub scales: *mut f64,
    /// For each problem, how many pairs were selected.
    pub count: *mut u32,
    /// For each problem, 0, or 1 + the index of the first pair whose norms are no weight (negative, infinite or NaN);
    /// nothing is selected then.
    pub status: *mut u32,
    /// [`scratch_bytes`] for each problem, aligned to 16.
    pub scratch: *mut u8,
}
