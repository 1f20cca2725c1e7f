//! One layer on a GPU: what is timed, on inputs that are never all in the cache.

use crate::blas::Blas;
use crate::device::{Buffer, Gpu};
use half::bf16;
use rand::SeedableRng;
use rand_distr::{Distribution, Normal};
use rand_pcg::Pcg64;
use std::ptr;
use wtacrs_core::Keep;
use wtacrs_core::product::Update;
use wtacrs_kernels::block::spacing::Spacing;
use wtacrs_kernels::kernel::{self, gather_rows};
use wtacrs_kernels::launch::driver::DriverError;
use wtacrs_kernels::launch::{Kernel, Launcher, Shape};
use wtacrs_kernels::plan::{
    BackwardBuffers, DataType, ForwardBuffers, LinearPlan, LinearSettings, Randomness, WeightSource,
};

/// Random numbers are made once and repeated; odd, so that no two rows are alike.
const BLOCK: usize = (1 << 20) + 13;
/// Inputs change from run to run, so that so many times the cache's bytes lie between two uses of the same.
const CACHES: usize = 3;

/// H and dZ.
struct Inputs {
    h: Buffer,
    dz: Buffer,
}

/// A layer with all the memory that its runs need.
pub(crate) struct Layer<'a> {
    gpu: &'a Gpu,
    blas: &'a Blas,
    plan: LinearPlan,
    inputs: Vec<Inputs>,
    guess: Buffer,
    saved: Buffer,
    scratch: [Buffer; 2],
    norms: Buffer,
    gathered: Buffer,
    dw: Buffer,
    copies: [Buffer; 2],
    runs: usize,
}

/// A part of the estimate, by its number among the launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    NormsOfH,
    Select,
    Gather,
    NormsOfDz,
    /// With the reduction of its partial products.
    Product,
}

/// Lets some launches of a plan through.
struct Only<'a, L> {
    launcher: &'a mut L,
    wanted: std::ops::Range<usize>,
    seen: usize,
}

impl<L: Launcher> Launcher for Only<'_, L> {
    type Error = L::Error;

    unsafe fn launch<A: Copy>(&mut self, kernel: &Kernel<A>, shape: Shape, args: &A) -> Result<(), L::Error> {
        self.seen += 1;
        if !self.wanted.contains(&(self.seen - 1)) {
            return Ok(());
        }
        // SAFETY: the plan's promise.
        unsafe { self.launcher.launch(kernel, shape, args) }
    }
}

impl<'a> Layer<'a> {
    pub(crate) fn new(gpu: &'a Gpu, blas: &'a Blas, [tokens, inputs, outputs]: [usize; 3], fraction: f64) -> Self {
        let settings = LinearSettings {
            weights: WeightSource::Norms,
            ..LinearSettings::new(tokens, inputs, outputs, Keep::Fraction(fraction)).of_type(DataType::Bf16)
        };
        let plan = LinearPlan::new(settings, gpu.driver.device()).expect("a valid layer");
        let mut random = Pcg64::seed_from_u64(1);
        let normal = Normal::new(0.0_f32, 1.0).expect("a valid deviation");
        let block: Vec<bf16> = (0..BLOCK).map(|_| bf16::from_f32(normal.sample(&mut random))).collect();
        // Norms of tokens' gradients spread over orders of magnitude, or there would be nothing to choose.
        let norms: Vec<f32> = (0..tokens).map(|_| (1.5 * normal.sample(&mut random)).exp()).collect();
        let bytes = 2 * tokens * (inputs + outputs);
        let sets = (CACHES * gpu.driver.device().l2_bytes as usize).div_ceil(bytes) + 1;
        let kept = plan.kept_rows();
        let inputs_of = |_| Inputs {
            h: Buffer::repeated(2 * tokens * inputs, &block),
            dz: Buffer::repeated(2 * tokens * outputs, &block[7..]),
        };
        let most = 2 * tokens * inputs.max(outputs);
        Self {
            gpu,
            blas,
            inputs: (0..sets).map(inputs_of).collect(),
            guess: Buffer::repeated(4 * tokens, &norms),
            saved: Buffer::new(plan.saved().bytes as usize),
            // Apart, so that a step alone finds what the one before it left.
            scratch: [plan.forward_scratch_bytes(), plan.backward_scratch_bytes()]
                .map(|bytes| Buffer::new(bytes as usize)),
            norms: Buffer::new(4 * tokens),
            gathered: Buffer::new(2 * kept * outputs),
            dw: Buffer::new(2 * inputs * outputs),
            copies: [Buffer::new(most), Buffer::new(most)],
            plan,
            runs: 0,
        }
    }

    pub(crate) fn kept(&self) -> usize {
        self.plan.kept_rows()
    }

    fn next(&mut self) -> usize {
        self.runs += 1;
        self.runs % self.inputs.len()
    }

    /// Launches `wanted` of the forward pass's launches.
    fn forward(&mut self, wanted: std::ops::Range<usize>) {
        let inputs = &self.inputs[self.runs % self.inputs.len()];
        let buffers = ForwardBuffers {
            input: inputs.h.pointer(),
            guess: self.guess.pointer(),
            placement: ptr::null(),
            cached: ptr::null(),
            saved: self.saved.memory(),
            scratch: self.scratch[0].memory(),
        };
        let randomness = Randomness::new(1, self.runs as u64 * self.plan.draws());
        let mut launcher = Only { launcher: &mut self.gpu.launcher(), wanted, seen: 0 };
        // SAFETY: all buffers have the sizes that the plan tells.
        unsafe { self.plan.forward(&mut launcher, &buffers, randomness) }.expect("launches");
    }

    /// Launches `wanted` of the backward pass's launches.
    fn backward(&mut self, wanted: std::ops::Range<usize>) {
        let inputs = &self.inputs[self.runs % self.inputs.len()];
        let buffers = BackwardBuffers {
            saved: self.saved.memory(),
            gradient: inputs.dz.pointer(),
            gradient_norms: self.norms.pointer(),
            weight_gradient: self.dw.pointer(),
            bias_gradient: std::ptr::null_mut(),
            update: Update::Overwrite,
            scratch: self.scratch[1].memory(),
        };
        let mut launcher = Only { launcher: &mut self.gpu.launcher(), wanted, seen: 0 };
        // SAFETY: as above.
        unsafe { self.plan.backward(&mut launcher, &buffers) }.expect("launches");
    }

    /// The whole estimate: forward and backward.
    pub(crate) fn estimate(&mut self) {
        self.next();
        self.forward(0..3);
        self.backward(0..3);
    }

    pub(crate) fn step(&mut self, step: Step) {
        self.next();
        match step {
            Step::NormsOfH => self.forward(0..1),
            Step::Select => self.forward(1..2),
            Step::Gather => self.forward(2..3),
            Step::NormsOfDz => self.backward(0..1),
            Step::Product => self.backward(1..3),
        }
    }

    /// dW from all tokens, by cuBLAS.
    pub(crate) fn exact(&mut self) {
        let set = self.next();
        let &LinearSettings { tokens, in_features, out_features, .. } = self.plan.settings();
        let Inputs { h, dz } = &self.inputs[set];
        // SAFETY: all buffers have those sizes.
        unsafe {
            let sizes = [tokens, in_features, out_features];
            self.blas.weight_gradient(sizes, h.pointer(), dz.pointer(), self.dw.pointer());
        }
    }

    /// dW from the kept rows, by cuBLAS: dZ's rows are gathered first.
    pub(crate) fn gather_and_blas(&mut self) {
        self.next();
        self.gather_dz().expect("launches");
        self.blas_of_kept_rows();
    }

    /// cuBLAS alone on as many rows as are kept.
    pub(crate) fn blas_of_kept_rows(&mut self) {
        let &LinearSettings { in_features, out_features, .. } = self.plan.settings();
        let sizes = [self.kept(), in_features, out_features];
        // SAFETY: saved rows begin the saved memory, dense for these widths; the gathered ones are as many.
        unsafe {
            self.blas.weight_gradient(sizes, self.saved.pointer(), self.gathered.pointer(), self.dw.pointer());
        }
    }

    fn gather_dz(&self) -> Result<(), DriverError> {
        let (outputs, rows) = (self.plan.settings().out_features as u32, self.kept() as u32);
        let saved = |offset: u64| self.saved.pointer::<u8>().wrapping_add(offset as usize);
        let parts = self.plan.saved();
        let args = gather_rows::Args {
            x: self.inputs[self.runs % self.inputs.len()].dz.pointer(),
            leading: outputs.into(),
            spacing: Spacing::even(0),
            columns: outputs,
            rows,
            indices: saved(parts.indices.offset).cast(),
            scales: ptr::null(),
            count: saved(parts.count.offset).cast(),
            out: self.gathered.pointer(),
            out_leading: outputs.into(),
            out_spacing: Spacing::even(0),
        };
        let shape = gather_rows::shape(rows, outputs, 1, 2);
        // SAFETY: all buffers have the sizes that the arguments tell.
        unsafe { self.gpu.launcher().launch(&kernel::GATHER_ROWS_BF16, shape, &args) }
    }

    /// A copy that moves so many bytes, half of them read and half written.
    pub(crate) fn copy(&mut self, traffic: usize) {
        self.gpu.copy(&self.copies[0], &self.copies[1], traffic / 2);
    }

    /// What a step reads and writes at least, in bytes.
    pub(crate) fn traffic(&self, step: Step) -> usize {
        let &LinearSettings { tokens, in_features, out_features, .. } = self.plan.settings();
        match step {
            Step::NormsOfH => 2 * tokens * in_features,
            Step::NormsOfDz => 2 * tokens * out_features,
            Step::Gather => 4 * self.kept() * in_features,
            Step::Select | Step::Product => 0,
        }
    }
}
