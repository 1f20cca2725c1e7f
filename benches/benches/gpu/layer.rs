//! One layer on a GPU. Each step is timed with memory that is in the L2 cache only if the step's own launches put it there.

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
use wtacrs_core::product::{Packing, Update};
use wtacrs_kernels::kernel::matrix::Spacing;
use wtacrs_kernels::kernel::{self, gather_rows};
use wtacrs_kernels::launch::dense::{DenseOperands, DenseProduct};
use wtacrs_kernels::launch::driver::DriverError;
use wtacrs_kernels::launch::{Kernel, Launcher, Shape};
use wtacrs_kernels::plan::{
    BackwardBuffers, DeviceRandomness, Engine, ForwardBuffers, LinearPlan, LinearSettings, WeightSource,
};

/// Runs between two events. Several, since recording an event takes time too.
pub(crate) const RUNS_PER_TIMING: usize = 8;
/// How many random numbers are drawn. A matrix repeats them, and since their number is odd, all its rows differ.
const RANDOM_NUMBERS: usize = (1 << 20) + 13;
/// Runs use several memories in turn. Between two uses of the same memory, runs touch at least so many times the L2's
/// bytes, even the runs that touch least, which read the kept rows of the narrower matrix.
const L2_SIZES_BETWEEN_USES: usize = 2;

/// Memory that a run reads, or writes in proportion to the tokens. The runs of this library and of the peers use them in
/// turn.
struct RunMemory {
    h: Buffer,
    dz: Buffer,
    saved: Buffer,
    /// What the packed layer saves.
    packed: Buffer,
    /// Kept rows of dZ, for the peers, which cannot gather rows.
    gathered_dz: Buffer,
    /// The target of copies.
    copy_target: Buffer,
}

/// A layer with all the memory that its runs need.
pub(crate) struct Layer<'a> {
    gpu: &'a Gpu,
    plan: LinearPlan,
    /// The same layer with a predictor's θ instead of norms, and with the bias gradient.
    extended_plan: LinearPlan,
    /// The same layer with rows in 4 bits an element.
    packed_plan: LinearPlan,
    /// The first with a product by cuBLASLt, if there is one.
    library_plan: Option<LinearPlan>,
    memories: Vec<RunMemory>,
    guess: Buffer,
    guesses: Guesses,
    /// One for each run between two events: a selection needs an exchange that `row_norms` has cleared.
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
    /// Norms of H with the product with θ.
    NormsAndGuess,
    Select,
    Gather,
    /// The gather into 4 bits.
    Pack,
    NormsOfDz,
    /// Norms of dZ with the bias gradient's partial sums.
    NormsAndSums,
    /// The product, with the reduction of its partial products.
    Product,
    /// The product alone.
    Multiply,
    /// The same, added to dW.
    MultiplyAndAdd,
    /// The reduction alone: nothing where the product is not cut.
    Reduce,
    /// The same, added to dW.
    ReduceAndAdd,
    /// Packed rows to bf16.
    Unpack,
    /// The reduction of a product of packed rows, which turns it back.
    TurnBack,
    Update,
    Fetch,
    Store,
}

/// Launches only some of a plan's launches.
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

    unsafe fn multiply(&mut self, product: &DenseProduct, operands: &DenseOperands) -> Result<(), L::Error> {
        self.seen += 1;
        if !self.wanted.contains(&(self.seen - 1)) {
            return Ok(());
        }
        // SAFETY: as above.
        unsafe { self.launcher.multiply(product, operands) }
    }
}

impl<'a> Layer<'a> {
    pub(crate) fn new(gpu: &'a Gpu, [tokens, inputs, outputs]: [usize; 3], fraction: f64) -> Self {
        let mut settings = LinearSettings::new(tokens, inputs, outputs, Keep::Fraction(fraction));
        settings.weights = WeightSource::Norms;
        settings.engine = Engine::Own;
        let mut by_library = settings.clone();
        by_library.engine = Engine::CublasLt;
        let library_plan = LinearPlan::new(by_library, gpu.driver.device());
        let library_plan = library_plan.map_err(|error| eprintln!("no estimate by cuBLASLt: {error}")).ok();
        let mut extended = settings.clone();
        extended.weights = WeightSource::Predicted { clamp: 6.0 };
        extended.bias_gradient = true;
        let mut packed = settings.clone();
        packed.packing = Packing::Bits4;
        let plan_of = |settings| LinearPlan::new(settings, gpu.driver.device()).expect("a valid layer");
        let [plan, extended_plan, packed_plan] = [settings, extended, packed].map(plan_of);
        let mut random = Pcg64::seed_from_u64(1);
        let normal = Normal::new(0.0_f32, 1.0).expect("a valid deviation");
        let block: Vec<bf16> = (0..RANDOM_NUMBERS).map(|_| bf16::from_f32(normal.sample(&mut random))).collect();
        // Norms of real gradients are spread over orders of magnitude. With equal norms, a selection would have no winners.
        let norms: Vec<f32> = (0..tokens).map(|_| (1.5 * normal.sample(&mut random)).exp()).collect();
        let kept = plan.kept_rows();
        let bytes_between_uses = L2_SIZES_BETWEEN_USES * gpu.driver.device().l2_bytes as usize;
        let originals =
            (Buffer::repeated(2 * tokens * inputs, &block), Buffer::repeated(2 * tokens * outputs, &block[7..]));
        let memory = |_| RunMemory {
            h: gpu.copy_of(&originals.0),
            dz: gpu.copy_of(&originals.1),
            saved: Buffer::new(plan.saved().bytes as usize),
            packed: Buffer::new(packed_plan.saved().bytes as usize),
            gathered_dz: Buffer::new(2 * kept * outputs),
            copy_target: Buffer::new((tokens * inputs.max(outputs)).max(2 * kept * inputs)),
        };
        let memories: Vec<RunMemory> =
            (0..bytes_between_uses.div_ceil(2 * kept * inputs.min(outputs)) + 1).map(memory).collect();
        let [forward_bytes, backward_bytes] = [LinearPlan::forward_scratch_bytes, LinearPlan::backward_scratch_bytes]
            .map(|bytes| {
                let plans = [&plan, &extended_plan, &packed_plan].into_iter().chain(&library_plan);
                plans.map(bytes).max().unwrap_or(0) as usize
            });
        let mut layer = Self {
            gpu,
            guess: Buffer::repeated(4 * tokens, &norms),
            guesses: Guesses::new(&plan, bytes_between_uses),
            // Backward passes have their own scratch, so a step timed alone finds the results of the step before it.
            forward_scratch: (0..RUNS_PER_TIMING).map(|_| Buffer::new(forward_bytes)).collect(),
            backward_scratch: Buffer::new(backward_bytes),
            norms: Buffer::new(4 * tokens),
            bias: Buffer::new(4 * outputs),
            dw: Buffer::new(4 * inputs * outputs),
            memories,
            plan,
            extended_plan,
            packed_plan,
            library_plan,
            runs: 0,
        };
        layer.fill();
        layer
    }

    /// Fills every memory with kept rows, which the peers multiply, and with the norms of dZ, and the cache with every
    /// sample.
    fn fill(&mut self) {
        for _ in 0..self.memories.len() {
            self.estimate();
            self.forward(&self.packed_plan, 0..3);
            self.backward(&self.packed_plan, 0..4);
            self.gather_dz().expect("launches");
        }
        (0..self.guesses.batches()).for_each(|run| self.guesses.store(self.gpu, run, &self.norms));
        // Waits for all of them.
        self.gpu.time(|| ());
    }

    pub(crate) fn kept(&self) -> usize {
        self.plan.kept_rows()
    }

    fn memory(&self) -> &RunMemory {
        &self.memories[self.runs % self.memories.len()]
    }

    fn saved(&self, plan: &LinearPlan) -> &Buffer {
        let RunMemory { saved, packed, .. } = self.memory();
        if plan.settings().packing.is_packed() { packed } else { saved }
    }

    /// Launches the launches `wanted` of a forward pass.
    fn forward(&self, plan: &LinearPlan, wanted: Range<usize>) {
        let memory = self.memory();
        let is_predicted = plan.settings().weights != WeightSource::Norms;
        let buffers = ForwardBuffers {
            input: memory.h.pointer(),
            guess: if is_predicted { self.guesses.theta() } else { self.guess.pointer() },
            placement: if is_predicted { self.guesses.placement() } else { ptr::null() },
            cached: ptr::null(),
            saved: self.saved(plan).memory(),
            scratch: self.forward_scratch[self.runs % RUNS_PER_TIMING].memory(),
        };
        let randomness = DeviceRandomness::new(1, self.runs as u64 * plan.draws());
        let mut launcher = Only { launcher: &mut self.gpu.launcher(), wanted, seen: 0 };
        // SAFETY: all buffers have the sizes that the plan asks for.
        unsafe { plan.forward(&mut launcher, &buffers, randomness) }.expect("launches");
    }

    /// Launches the launches `wanted` of a backward pass.
    fn backward(&self, plan: &LinearPlan, wanted: Range<usize>) {
        self.backward_with(plan, wanted, Update::Overwrite);
    }

    fn backward_with(&self, plan: &LinearPlan, wanted: Range<usize>, update: Update) {
        let memory = self.memory();
        let buffers = BackwardBuffers {
            saved: self.saved(plan).memory(),
            gradient: memory.dz.pointer(),
            gradient_norms: self.norms.pointer(),
            weight_gradient: self.dw.pointer(),
            bias_gradient: if plan.settings().bias_gradient { self.bias.pointer() } else { ptr::null_mut() },
            update,
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

    pub(crate) fn has_library(&self) -> bool {
        self.library_plan.is_some()
    }

    /// The same with a product by cuBLASLt: nothing without it.
    pub(crate) fn estimate_by_library(&mut self) {
        self.runs += 1;
        if let Some(plan) = &self.library_plan {
            self.forward(plan, 0..3);
            self.backward(plan, 0..4);
        }
    }

    pub(crate) fn step(&mut self, step: Step) {
        self.runs += 1;
        match step {
            Step::NormsOfH => self.forward(&self.plan, 0..1),
            Step::NormsAndGuess => self.forward(&self.extended_plan, 0..1),
            Step::Select => self.forward(&self.plan, 1..2),
            Step::Gather => self.forward(&self.plan, 2..3),
            Step::Pack => self.forward(&self.packed_plan, 2..3),
            Step::NormsOfDz => self.backward(&self.plan, 0..1),
            Step::NormsAndSums => self.backward(&self.extended_plan, 0..1),
            Step::Product => self.backward(&self.plan, 1..3),
            Step::Multiply => self.backward(&self.plan, 1..2),
            Step::MultiplyAndAdd => self.backward_with(&self.plan, 1..2, Update::Accumulate),
            Step::Reduce => self.backward(&self.plan, 2..3),
            Step::ReduceAndAdd => self.backward_with(&self.plan, 2..3, Update::Accumulate),
            Step::Unpack => self.backward(&self.packed_plan, 1..2),
            Step::TurnBack => self.backward(&self.packed_plan, 3..4),
            Step::Update => self.guesses.update(self.gpu, self.memory().saved.memory(), &self.norms),
            Step::Fetch => self.guesses.fetch(self.gpu, self.runs),
            Step::Store => self.guesses.store(self.gpu, self.runs, &self.norms),
        }
    }

    /// Prepares memory for the next [`RUNS_PER_TIMING`] runs of a step. A selection needs norms and a cleared exchange, and leaves
    /// the exchange written.
    pub(crate) fn prepare(&mut self, step: Step) {
        if step == Step::Select {
            (0..RUNS_PER_TIMING).for_each(|_| self.step(Step::NormsOfH));
        }
    }

    /// Whether a reduction adds partial products.
    pub(crate) fn has_partial_products(&self) -> bool {
        self.plan.splits() > 1
    }

    /// dW from all tokens, by a peer.
    pub(crate) fn exact(&mut self, peer: &dyn Peer) {
        self.runs += 1;
        let &LinearSettings { tokens, in_features, out_features, .. } = self.plan.settings();
        let RunMemory { h, dz, .. } = self.memory();
        // SAFETY: all buffers have those sizes.
        unsafe {
            peer.weight_gradient([tokens, in_features, out_features], h.pointer(), dz.pointer(), self.dw.pointer());
        }
    }

    /// dW from the kept rows: this library gathers dZ's rows, and a peer multiplies.
    pub(crate) fn gather_and_multiply(&mut self, peer: &dyn Peer) {
        self.runs += 1;
        self.gather_dz().expect("launches");
        self.enqueue_kept_product(peer);
    }

    /// The product of as many dense rows as are kept, by a peer.
    pub(crate) fn multiply_kept_rows(&mut self, peer: &dyn Peer) {
        self.runs += 1;
        self.enqueue_kept_product(peer);
    }

    fn enqueue_kept_product(&self, peer: &dyn Peer) {
        let &LinearSettings { in_features, out_features, .. } = self.plan.settings();
        let RunMemory { saved, gathered_dz, .. } = self.memory();
        let sizes = [self.kept(), in_features, out_features];
        // SAFETY: the saved memory begins with the saved rows, which are dense for these widths; as many rows are gathered_dz.
        unsafe { peer.weight_gradient(sizes, saved.pointer(), gathered_dz.pointer(), self.dw.pointer()) };
    }

    fn gather_dz(&self) -> Result<(), DriverError> {
        let (outputs, rows) = (self.plan.settings().out_features as u32, self.kept() as u32);
        let memory = self.memory();
        let saved = |offset: u64| memory.saved.pointer::<u8>().wrapping_add(offset as usize);
        let parts = self.plan.saved();
        let args = gather_rows::Args {
            x: memory.dz.pointer(),
            leading: outputs.into(),
            spacing: Spacing::even(0),
            columns: outputs,
            rows,
            indices: saved(parts.indices.offset).cast(),
            scales: ptr::null(),
            count: saved(parts.count.offset).cast(),
            out: memory.gathered_dz.pointer(),
            out_leading: outputs.into(),
            out_spacing: Spacing::even(0),
        };
        let shape = gather_rows::shape(rows, outputs, 1, 2);
        let is_aligned = args.are_aligned(2) == [true; 2];
        let kernel = if is_aligned { &kernel::GATHER_ROWS_BF16 } else { &kernel::GATHER_ROWS_BF16_ANY };
        // SAFETY: all buffers have the sizes that the arguments say.
        unsafe { self.gpu.launcher().launch(kernel, shape, &args) }
    }

    /// A copy that moves as many bytes as a step, half of them read and half written.
    pub(crate) fn copy_for(&mut self, step: Step) {
        self.runs += 1;
        let RunMemory { h, dz, copy_target, .. } = self.memory();
        let from = if step == Step::NormsOfDz { dz } else { h };
        self.gpu.copy(copy_target, from, self.traffic(step) / 2);
    }

    /// The bytes that a step reads and writes at least.
    fn traffic(&self, step: Step) -> usize {
        let &LinearSettings { tokens, in_features, out_features, .. } = self.plan.settings();
        match step {
            Step::NormsOfH => 2 * tokens * in_features,
            Step::NormsOfDz => 2 * tokens * out_features,
            Step::Gather => 4 * self.kept() * in_features,
            // 16 bits on one side and 4 on the other.
            Step::Pack | Step::Unpack => 5 * self.kept() * in_features / 2,
            _ => 0,
        }
    }
}
