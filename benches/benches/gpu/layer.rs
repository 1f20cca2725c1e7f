//! One layer on a GPU. Its steps are timed on memory that is in the L2 cache only if the step's own launches put it there.

use crate::blas::Peer;
use crate::device::{Buffer, Gpu};
use crate::guesses::Guesses;
use half::bf16;
use rand::SeedableRng;
use rand_distr::{Distribution, Normal};
use rand_pcg::Pcg64;
use std::ops::Range;
use std::ptr;
use wtacrs_core::Keep;
use wtacrs_core::product::Update;
use wtacrs_kernels::kernel::matrix::Spacing;
use wtacrs_kernels::kernel::{self, gather_rows};
use wtacrs_kernels::launch::driver::DriverError;
use wtacrs_kernels::launch::{Kernel, Launcher, Shape};
use wtacrs_kernels::plan::{
    BackwardBuffers, DeviceRandomness, ForwardBuffers, LinearPlan, LinearSettings, WeightSource,
};

/// Runs between two events: several, since recording an event takes time too.
pub(crate) const REPEATED: usize = 8;
/// How many random numbers are drawn. They are repeated, and an odd number of them makes all rows differ.
const BLOCK: usize = (1 << 20) + 13;
/// Runs take different memory in turn. Between two uses of the same memory, runs touch at least so many times the cache's
/// bytes, even those that touch least: they read the kept rows of the narrower matrix.
const CACHES: usize = 2;

/// Memory that a run reads, or writes in proportion to the tokens. Runs take sets in turn, this library's and the peers'.
struct Set {
    h: Buffer,
    dz: Buffer,
    saved: Buffer,
    /// Kept rows of dZ, for peers, which do not gather rows.
    gathered: Buffer,
    /// The target of copies.
    copied: Buffer,
}

/// A layer with all the memory that its runs need.
pub(crate) struct Layer<'a> {
    gpu: &'a Gpu,
    plan: LinearPlan,
    /// The same with a predictor's θ in place of norms, and the bias gradient.
    with_all: LinearPlan,
    sets: Vec<Set>,
    guess: Buffer,
    guesses: Guesses,
    /// Of forward passes, one for each run between two events: a selection needs an exchange that `row_norms` cleared.
    forward_scratch: Vec<Buffer>,
    backward_scratch: Buffer,
    norms: Buffer,
    bias: Buffer,
    dw: Buffer,
    runs: usize,
}

/// A part of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    NormsOfH,
    /// With the product with θ.
    NormsAndGuess,
    Select,
    Gather,
    NormsOfDz,
    /// With the bias gradient's partial sums.
    NormsAndSums,
    /// The product, with the reduction of its partial products.
    Product,
    /// The product alone.
    Multiply,
    /// The reduction alone: nothing where the product is not cut.
    Reduce,
    Update,
    Fetch,
    Store,
}

/// Passes only some launches of a plan on.
struct Only<'a, L> {
    launcher: &'a mut L,
    wanted: Range<usize>,
    seen: usize,
}

impl<L: Launcher> Launcher for Only<'_, L> {
    type Error = L::Error;

    unsafe fn launch<A: Copy>(&mut self, kernel: &Kernel<A>, shape: Shape, args: &A) -> Result<(), L::Error> {
        self.seen += 1;
        if !self.wanted.contains(&(self.seen - 1)) {
            return Ok(());
        }
        // SAFETY: the plan vouches for its launches.
        unsafe { self.launcher.launch(kernel, shape, args) }
    }
}

impl<'a> Layer<'a> {
    pub(crate) fn new(gpu: &'a Gpu, [tokens, inputs, outputs]: [usize; 3], fraction: f64) -> Self {
        let mut settings = LinearSettings::new(tokens, inputs, outputs, Keep::Fraction(fraction));
        settings.weights = WeightSource::Norms;
        let mut all = settings.clone();
        all.weights = WeightSource::Predicted { clamp: 6.0 };
        all.bias_gradient = true;
        let plan_of = |settings| LinearPlan::new(settings, gpu.driver.device()).expect("a valid layer");
        let (plan, with_all) = (plan_of(settings), plan_of(all));
        let mut random = Pcg64::seed_from_u64(1);
        let normal = Normal::new(0.0_f32, 1.0).expect("a valid deviation");
        let block: Vec<bf16> = (0..BLOCK).map(|_| bf16::from_f32(normal.sample(&mut random))).collect();
        // Norms of tokens' gradients spread over orders of magnitude, or there would be nothing to choose.
        let norms: Vec<f32> = (0..tokens).map(|_| (1.5 * normal.sample(&mut random)).exp()).collect();
        let kept = plan.kept_rows();
        let turned_over = CACHES * gpu.driver.device().l2_bytes as usize;
        let first =
            (Buffer::repeated(2 * tokens * inputs, &block), Buffer::repeated(2 * tokens * outputs, &block[7..]));
        let set = |_| Set {
            h: gpu.copy_of(&first.0),
            dz: gpu.copy_of(&first.1),
            saved: Buffer::new(plan.saved().bytes as usize),
            gathered: Buffer::new(2 * kept * outputs),
            copied: Buffer::new((tokens * inputs.max(outputs)).max(2 * kept * inputs)),
        };
        let sets: Vec<Set> = (0..turned_over.div_ceil(2 * kept * inputs.min(outputs)) + 1).map(set).collect();
        let scratch = |bytes: fn(&LinearPlan) -> u64| Buffer::new(bytes(&plan).max(bytes(&with_all)) as usize);
        let mut layer = Self {
            gpu,
            guess: Buffer::repeated(4 * tokens, &norms),
            guesses: Guesses::new(&plan, turned_over),
            // Not shared with backward passes, so that a step alone finds the results of the step before it.
            forward_scratch: (0..REPEATED).map(|_| scratch(LinearPlan::forward_scratch_bytes)).collect(),
            backward_scratch: scratch(LinearPlan::backward_scratch_bytes),
            norms: Buffer::new(4 * tokens),
            bias: Buffer::new(4 * outputs),
            dw: Buffer::new(4 * inputs * outputs),
            sets,
            plan,
            with_all,
            runs: 0,
        };
        layer.fill();
        layer
    }

    /// Fills every set with kept rows, which peers multiply, the norms of dZ, and the cache with every sample.
    fn fill(&mut self) {
        for _ in 0..self.sets.len() {
            self.estimate();
            self.gather_dz().expect("launches");
        }
        (0..self.guesses.batches()).for_each(|run| self.guesses.store(self.gpu, run, &self.norms));
        // To wait for all of them.
        self.gpu.time(|| ());
    }

    pub(crate) fn kept(&self) -> usize {
        self.plan.kept_rows()
    }

    fn set(&self) -> &Set {
        &self.sets[self.runs % self.sets.len()]
    }

    /// Launches `wanted` of a forward pass's launches.
    fn forward(&self, plan: &LinearPlan, wanted: Range<usize>) {
        let set = self.set();
        let is_predicted = plan.settings().weights != WeightSource::Norms;
        let buffers = ForwardBuffers {
            input: set.h.pointer(),
            guess: if is_predicted { self.guesses.theta() } else { self.guess.pointer() },
            placement: if is_predicted { self.guesses.placement() } else { ptr::null() },
            cached: ptr::null(),
            saved: set.saved.memory(),
            scratch: self.forward_scratch[self.runs % REPEATED].memory(),
        };
        let randomness = DeviceRandomness::new(1, self.runs as u64 * plan.draws());
        let mut launcher = Only { launcher: &mut self.gpu.launcher(), wanted, seen: 0 };
        // SAFETY: all buffers have the sizes that the plan asks for.
        unsafe { plan.forward(&mut launcher, &buffers, randomness) }.expect("launches");
    }

    /// Launches `wanted` of a backward pass's launches.
    fn backward(&self, plan: &LinearPlan, wanted: Range<usize>) {
        let set = self.set();
        let buffers = BackwardBuffers {
            saved: set.saved.memory(),
            gradient: set.dz.pointer(),
            gradient_norms: self.norms.pointer(),
            weight_gradient: self.dw.pointer(),
            bias_gradient: if plan.settings().bias_gradient { self.bias.pointer() } else { ptr::null_mut() },
            update: Update::Overwrite,
            scratch: self.backward_scratch.memory(),
        };
        let mut launcher = Only { launcher: &mut self.gpu.launcher(), wanted, seen: 0 };
        // SAFETY: as above.
        unsafe { plan.backward(&mut launcher, &buffers) }.expect("launches");
    }

    /// The whole estimate: forward and backward.
    pub(crate) fn estimate(&mut self) {
        self.runs += 1;
        self.forward(&self.plan, 0..3);
        self.backward(&self.plan, 0..3);
    }

    pub(crate) fn step(&mut self, step: Step) {
        self.runs += 1;
        match step {
            Step::NormsOfH => self.forward(&self.plan, 0..1),
            Step::NormsAndGuess => self.forward(&self.with_all, 0..1),
            Step::Select => self.forward(&self.plan, 1..2),
            Step::Gather => self.forward(&self.plan, 2..3),
            Step::NormsOfDz => self.backward(&self.plan, 0..1),
            Step::NormsAndSums => self.backward(&self.with_all, 0..1),
            Step::Product => self.backward(&self.plan, 1..3),
            Step::Multiply => self.backward(&self.plan, 1..2),
            Step::Reduce => self.backward(&self.plan, 2..3),
            Step::Update => self.guesses.update(self.gpu, self.set().saved.memory(), &self.norms),
            Step::Fetch => self.guesses.fetch(self.gpu, self.runs),
            Step::Store => self.guesses.store(self.gpu, self.runs, &self.norms),
        }
    }

    /// Prepares memory for the next [`REPEATED`] runs of a step. A selection needs norms and a cleared exchange, into which it
    /// writes.
    pub(crate) fn prepare(&mut self, step: Step) {
        if step == Step::Select {
            (0..REPEATED).for_each(|_| self.step(Step::NormsOfH));
        }
    }

    /// Whether there are partial products to add.
    pub(crate) fn is_cut(&self) -> bool {
        self.plan.splits() > 1
    }

    /// dW from all tokens.
    pub(crate) fn exact(&mut self, peer: &dyn Peer) {
        self.runs += 1;
        let &LinearSettings { tokens, in_features, out_features, .. } = self.plan.settings();
        let Set { h, dz, .. } = self.set();
        // SAFETY: all buffers have those sizes.
        unsafe {
            peer.weight_gradient([tokens, in_features, out_features], h.pointer(), dz.pointer(), self.dw.pointer());
        }
    }

    /// dW from the kept rows: dZ's rows are gathered first, by this library.
    pub(crate) fn gather_and_multiply(&mut self, peer: &dyn Peer) {
        self.runs += 1;
        self.gather_dz().expect("launches");
        self.multiply_kept_rows(peer);
    }

    /// The peer alone on as many rows as are kept.
    pub(crate) fn kept_rows_by(&mut self, peer: &dyn Peer) {
        self.runs += 1;
        self.multiply_kept_rows(peer);
    }

    fn multiply_kept_rows(&self, peer: &dyn Peer) {
        let &LinearSettings { in_features, out_features, .. } = self.plan.settings();
        let Set { saved, gathered, .. } = self.set();
        let sizes = [self.kept(), in_features, out_features];
        // SAFETY: the saved memory begins with the saved rows, which are dense for these widths; as many rows are gathered.
        unsafe { peer.weight_gradient(sizes, saved.pointer(), gathered.pointer(), self.dw.pointer()) };
    }

    fn gather_dz(&self) -> Result<(), DriverError> {
        let (outputs, rows) = (self.plan.settings().out_features as u32, self.kept() as u32);
        let set = self.set();
        let saved = |offset: u64| set.saved.pointer::<u8>().wrapping_add(offset as usize);
        let parts = self.plan.saved();
        let args = gather_rows::Args {
            x: set.dz.pointer(),
            leading: outputs.into(),
            spacing: Spacing::even(0),
            columns: outputs,
            rows,
            indices: saved(parts.indices.offset).cast(),
            scales: ptr::null(),
            count: saved(parts.count.offset).cast(),
            out: set.gathered.pointer(),
            out_leading: outputs.into(),
            out_spacing: Spacing::even(0),
        };
        let shape = gather_rows::shape(rows, outputs, 1, 2);
        // SAFETY: all buffers have the sizes that the arguments say.
        unsafe { self.gpu.launcher().launch(&kernel::GATHER_ROWS_BF16, shape, &args) }
    }

    /// A copy that moves as many bytes as a step, half of them read and half written.
    pub(crate) fn copy_for(&mut self, step: Step) {
        self.runs += 1;
        let Set { h, dz, copied, .. } = self.set();
        let from = if step == Step::NormsOfDz { dz } else { h };
        self.gpu.copy(copied, from, self.traffic(step) / 2);
    }

    /// What a step reads and writes at least, in bytes.
    fn traffic(&self, step: Step) -> usize {
        let &LinearSettings { tokens, in_features, out_features, .. } = self.plan.settings();
        match step {
            Step::NormsOfH => 2 * tokens * in_features,
            Step::NormsOfDz => 2 * tokens * out_features,
            Step::Gather => 4 * self.kept() * in_features,
            _ => 0,
        }
    }
}
