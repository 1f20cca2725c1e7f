//! A linear layer's steps on the emulator: the launches that a GPU would run, without a GPU.
//!
//! cargo run -p wtacrs-kernels --features emulator --example emulated_layer
//!
//! A plan turns a layer's settings into launches and sizes of memory. Here the launches run on the emulator, in host
//! memory. With the CUDA driver the same calls run on a stream, in device memory. The estimates of dW = Hᵀ dZ are compared
//! with wtacrs-core's exact product, and their error with the error that theory predicts.

use std::error::Error;
use std::ptr;
use wtacrs_core::ndarray::Array2;
use wtacrs_core::product::{Update, exact_weight_gradient, row_norms};
use wtacrs_core::sampling::{Keep, Weights};
use wtacrs_core::theory::poisson_variance;
use wtacrs_kernels::device::Device;
use wtacrs_kernels::launch::{Emulator, LaunchList};
use wtacrs_kernels::plan::{
    BackwardBuffers, DataType, DeviceRandomness, ForwardBuffers, LinearPlan, LinearSettings, Memory, Part, WeightSource,
};

const TOKENS: usize = 256;
const IN_FEATURES: usize = 48;
const OUT_FEATURES: usize = 32;
const KEEP: Keep = Keep::Fraction(0.3);
const STEPS: u64 = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let h = Array2::from_shape_fn((TOKENS, IN_FEATURES), |(i, j)| noise(i, j, 1));
    // Gradients of very different lengths, as training has them.
    let dz = Array2::from_shape_fn((TOKENS, OUT_FEATURES), |(i, j)| noise(i, j, 2) * (3.0 * noise(i, 0, 3)).exp());
    let (h_norms, dz_norms) = (row_norms(h.view()), row_norms(dz.view()));
    let mut exact = Array2::<f32>::zeros((IN_FEATURES, OUT_FEATURES));
    exact_weight_gradient(h.view(), dz.view(), exact.view_mut(), Update::Overwrite)?;

    let mut settings = LinearSettings::new(TOKENS, IN_FEATURES, OUT_FEATURES, KEEP).of_type(DataType::F32);
    // In training: the norms of the last visit, or a predictor's guesses. Here: the exact norms of dZ.
    settings.weights = WeightSource::Norms;
    let plan = LinearPlan::new(settings, &Device::emulated())?;
    let mut saved = DeviceMemory::new(plan.saved().bytes);
    let mut forward_scratch = DeviceMemory::new(plan.forward_scratch_bytes());
    let mut backward_scratch = DeviceMemory::new(plan.backward_scratch_bytes());
    let mut dw = Array2::<f32>::zeros((IN_FEATURES, OUT_FEATURES));
    let forward = ForwardBuffers {
        input: h.as_ptr().cast(),
        guess: dz_norms.as_ptr(),
        placement: ptr::null(),
        cached: ptr::null(),
        saved: saved.memory(),
        scratch: forward_scratch.memory(),
    };
    let backward = BackwardBuffers {
        saved: saved.memory(),
        gradient: dz.as_ptr().cast(),
        gradient_norms: ptr::null_mut(),
        weight_gradient: dw.as_mut_ptr().cast(),
        bias_gradient: ptr::null_mut(),
        update: Update::Overwrite,
        scratch: backward_scratch.memory(),
    };

    println!("a layer of {TOKENS} tokens, {IN_FEATURES} × {OUT_FEATURES} features");
    println!("saved: {} rows in {} bytes", plan.kept_rows(), plan.saved().bytes);
    let mut list = LaunchList::default();
    let mut randomness = DeviceRandomness::new(42, 0);
    // SAFETY: a list runs nothing.
    unsafe {
        plan.forward(&mut list, &forward, randomness)?;
        plan.backward(&mut list, &backward)?;
    }
    for launch in list.launches() {
        println!("  {:<18} {:?} blocks of {} threads", launch.kernel, launch.shape.grid, launch.shape.block);
    }

    let size = norm(exact.iter().copied());
    let mut mean = Array2::<f32>::zeros(dw.dim());
    let mut square = 0.0;
    for step in 0..STEPS {
        // Any order of threads gives the same bits.
        let mut emulator = Emulator { seed: step };
        // SAFETY: the matrices are dense and of the plan's sizes, each memory has as many bytes as the plan asks for, and
        // nothing else accesses any of them meanwhile.
        unsafe {
            plan.forward(&mut emulator, &forward, randomness)?;
            plan.backward(&mut emulator, &backward)?;
        }
        randomness.start = randomness.start.next(plan.draws());
        let error = norm((&dw - &exact).iter().copied()) / size;
        if step < 3 {
            let kept = saved.number(plan.saved().count);
            println!("step {step}: {kept} tokens kept, ‖dW − exact‖ is {error:.3} of ‖exact‖");
        }
        square += error * error / STEPS as f64;
        mean += &(&dw / STEPS as f32);
    }

    let weights = Weights::from_norms(&h_norms, &dz_norms)?;
    let squared = |i: usize| (f64::from(h_norms[i]) * f64::from(dz_norms[i])).powi(2);
    let predicted = poisson_variance(&weights, weights.budget(KEEP)?, squared).sqrt() / size;
    println!(
        "root mean square of {STEPS} steps: {:.3}, predicted for independent choices: {predicted:.3}",
        square.sqrt()
    );
    let of_mean = norm((&mean - &exact).iter().copied()) / size;
    println!("error of the mean of {STEPS} steps: {of_mean:.3}, about a quarter, since the estimates are unbiased");
    Ok(())
}

/// Host memory instead of a GPU's, aligned as GPUs' allocators align.
struct DeviceMemory {
    lines: Vec<Line>,
    bytes: u64,
}

#[repr(align(256))]
#[derive(Clone, Copy)]
struct Line([u8; 256]);

impl DeviceMemory {
    fn new(bytes: u64) -> Self {
        Self { lines: vec![Line([0; 256]); bytes.div_ceil(256) as usize], bytes }
    }

    fn memory(&mut self) -> Memory {
        Memory { at: self.lines.as_mut_ptr().cast(), bytes: self.bytes }
    }

    /// The first u32 of a part. Parts begin with a line.
    fn number(&self, part: Part) -> u32 {
        let Line([a, b, c, d, ..]) = self.lines[part.offset as usize / 256];
        u32::from_le_bytes([a, b, c, d])
    }
}

/// Numbers in [−1, 1) that look random.
fn noise(i: usize, j: usize, seed: u64) -> f32 {
    let bits = wtacrs_exact::philox::bits((i as u128) << 64 | j as u128, seed) as u32;
    bits as f32 / (1_u64 << 31) as f32 - 1.0
}

/// The Euclidean norm.
fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}
