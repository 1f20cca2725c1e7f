//! A step captured in a CUDA graph makes new draws at each replay, and does what direct launches do: forward, backward, the
//! predictor's update and the norm cache, with a selection by blocks that wait for one another. Only a GPU has graphs; other
//! machines check that the step consists of these launches, and that they run.

use crate::common::{Buffer, Machine};
use cudarc::driver::{result, sys};
use std::fmt::Debug;
use std::ptr;
use wtacrs_core::Keep;
use wtacrs_core::guesses::NormCache;
use wtacrs_core::guesses::{NormPredictor, PredictorSettings};
use wtacrs_core::product::{Packing, Update};
use wtacrs_kernels::device::Device;
use wtacrs_kernels::launch::driver::Stream;
use wtacrs_kernels::launch::{LaunchList, Launcher};
use wtacrs_kernels::plan::{
    BackwardBuffers, CacheBatch, DataType, DeviceRandomness, ForwardBuffers, LinearPlan, LinearSettings, Memory,
    NormCachePlan, PredictorPlan, UpdateBuffers, WeightSource,
};

/// Enough for several blocks.
const TOKENS: usize = 8192;
const FEATURES: usize = 64;
const SAMPLES: usize = 16;

struct Step {
    plan: LinearPlan,
    predictor: PredictorPlan,
    cache: NormCachePlan,
    h: Buffer<f32>,
    dz: Buffer<f32>,
    dz_norms: Buffer<f32>,
    saved: Buffer<u8>,
    scratch: [Buffer<u8>; 3],
    dw: Buffer<f32>,
    further: Buffer<u64>,
    state: Buffer<u8>,
    sums: Buffer<u8>,
    status: Buffer<u32>,
    remembered: Buffer<u8>,
    samples: Buffer<u64>,
    fetched: Buffer<f32>,
    /// The first bytes of the state and of the cache.
    first: [Vec<u8>; 2],
}

fn memory(of: &Buffer<u8>) -> Memory {
    Memory { at: of.bytes(), bytes: of.len() as u64 }
}

impl Step {
    fn new(machine: &Machine, device: &Device, packing: Packing) -> Self {
        let weights = WeightSource::Predicted { clamp: 6.0 };
        let mut settings = LinearSettings::new(TOKENS, FEATURES, FEATURES, Keep::Fraction(0.2)).of_type(DataType::F32);
        settings.weights = weights;
        settings.packing = packing;
        let plan = LinearPlan::new(settings, device).expect("valid");
        let settings = PredictorSettings::default().with_features(32);
        let predictor = PredictorPlan::new(&plan, settings).expect("valid");
        let fresh = NormPredictor::new(FEATURES, settings).expect("valid");
        let state = PredictorPlan::first_bytes(&fresh).expect("few features");

        let cache = NormCachePlan::new(SAMPLES, TOKENS / SAMPLES).expect("valid");
        let ids: Vec<u64> = (0..SAMPLES as u64).rev().collect();
        let mut known = NormCache::new();
        let norms: Vec<f32> = (0..TOKENS).map(|i| 1.0 / (1 + i % 97) as f32).collect();
        // Half of the samples.
        let lengths: Vec<_> = ids[..SAMPLES / 2].iter().map(|&id| (id, TOKENS / SAMPLES)).collect();
        known.store(&lengths, &norms[..TOKENS / 2]).expect("valid norms");
        let mut remembered = cache.first_bytes(&known).expect("fits");
        remembered.resize(cache.bytes() as usize, 0);

        let values = |seed: usize| -> Vec<f32> {
            (0..TOKENS * FEATURES).map(|i| ((i * 37 + i / 91 * seed) % 113) as f32 / 56.0 - 1.0).collect()
        };
        let room = |bytes: u64| machine.unwritten::<u8>(bytes as usize);
        Self {
            h: machine.upload(&values(3)),
            dz: machine.upload(&values(5)),
            dz_norms: machine.unwritten(TOKENS),
            saved: room(plan.saved().bytes),
            scratch: [plan.forward_scratch_bytes(), plan.backward_scratch_bytes(), predictor.scratch_bytes()].map(room),
            dw: machine.unwritten(FEATURES * FEATURES),
            further: machine.upload(&[0]),
            state: machine.upload(&state),
            sums: room(8 * predictor.sums_len()),
            status: machine.unwritten(2),
            remembered: machine.upload(&remembered),
            samples: machine.upload(&ids),
            fetched: machine.unwritten(TOKENS),
            first: [state, remembered],
            plan,
            predictor,
            cache,
        }
    }

    /// Puts everything back that a step moves.
    fn restart(&self, machine: &Machine, further: u64) {
        machine.write(&self.further, &[further]);
        machine.write(&self.dw, &vec![f32::NAN; FEATURES * FEATURES]);
        machine.write(&self.state, &self.first[0]);
        machine.write(&self.remembered, &self.first[1]);
    }

    /// A whole step on the launcher's stream.
    fn enqueue<L: Launcher<Error: Debug>>(&self, launcher: &mut L) {
        let [forward_scratch, backward_scratch, update_scratch] = &self.scratch;
        let of_state = |offset: u64| self.state.bytes().wrapping_add(offset as usize);
        let batch = CacheBatch {
            samples: self.samples.pointer(),
            lengths: ptr::null(),
            count: SAMPLES,
            row_tokens: TOKENS / SAMPLES,
            tokens: TOKENS,
        };
        let forward = ForwardBuffers {
            input: self.h.bytes(),
            guess: of_state(self.predictor.theta().offset).cast(),
            placement: of_state(self.predictor.placement().offset).cast(),
            cached: self.fetched.pointer(),
            saved: memory(&self.saved),
            scratch: memory(forward_scratch),
        };
        let backward = BackwardBuffers {
            saved: memory(&self.saved),
            gradient: self.dz.bytes(),
            gradient_norms: self.dz_norms.pointer(),
            weight_gradient: self.dw.bytes(),
            bias_gradient: ptr::null_mut(),
            update: Update::Overwrite,
            scratch: memory(backward_scratch),
        };
        let update = UpdateBuffers {
            saved: memory(&self.saved),
            gradient_norms: self.dz_norms.pointer(),
            cached_norms: self.fetched.pointer(),
            state: memory(&self.state),
            sums: memory(&self.sums),
            status: self.status.pointer(),
            scratch: memory(update_scratch),
        };
        let randomness = DeviceRandomness { further_offset: self.further.pointer(), ..DeviceRandomness::new(4, 9) };
        let remembered = memory(&self.remembered);
        // SAFETY: all buffers have the plans' sizes and outlive all launches.
        unsafe {
            self.cache.fetch(launcher, remembered, &batch, self.fetched.pointer()).expect("launches");
            self.plan.forward(launcher, &forward, randomness).expect("launches");
            self.plan.backward(launcher, &backward).expect("launches");
            self.predictor.update(launcher, &update).expect("launches");
            self.cache.store(launcher, remembered, &batch, self.dz_norms.pointer()).expect("launches");
        }
    }

    /// dW, the predictor's state and the cache.
    fn left(&self, machine: &Machine) -> (Vec<u32>, Vec<u8>, Vec<u8>) {
        let dw = machine.download(&self.dw).into_iter().map(f32::to_bits).collect();
        (dw, machine.download(&self.state), machine.download(&self.remembered))
    }
}

#[test]
fn a_step_is_its_launches() {
    let device = Device { multiprocessors: 132, ..Device::emulated() };
    let step = Step::new(&Machine::emulator(0), &device, Packing::Native);
    let mut list = LaunchList::default();
    step.enqueue(&mut list);
    let names: Vec<&str> = list.launches().iter().map(|launch| launch.kernel).collect();
    let expected = [
        "norm_cache_fetch",
        "row_norms_f32",
        "select_wta_pivotal",
        "gather_rows_f32",
        "row_norms_f32",
        names[5],
        "split_reduce",
        "predictor_features_f32",
        "predictor_sums",
        "predictor_apply",
        "norm_cache_store",
    ];
    assert_eq!(names, expected);
    assert!(names[5].starts_with("gather_gemm_"), "{names:?}");
    let select = list.launches()[2].shape;
    assert!(select.cooperative && select.grid[0] == 16, "{select:?}");

    let step = Step::new(&Machine::emulator(0), &device, Packing::Bits2);
    let mut list = LaunchList::default();
    step.enqueue(&mut list);
    let names: Vec<&str> = list.launches().iter().map(|launch| launch.kernel).collect();
    let expected = [
        "norm_cache_fetch",
        "row_norms_f32",
        "select_wta_pivotal",
        "gather_pack_f32",
        "row_norms_f32",
        "unpack_rows_f32",
        names[6],
        "turn_back_down",
        "predictor_features_packed",
        "predictor_sums",
        "predictor_apply",
        "norm_cache_store",
    ];
    assert_eq!(names, expected);
}

#[test]
fn a_step_runs() {
    steps_run(Packing::Native);
}

#[test]
fn a_packed_step_runs() {
    steps_run(Packing::Bits4);
}

fn steps_run(packing: Packing) {
    let machine = &mut Machine::emulator(0);
    let device = Device { multiprocessors: 132, ..Device::emulated() };
    let step = Step::new(machine, &device, packing);
    let mut run = |further| {
        step.restart(machine, further);
        step.enqueue(machine);
        assert_eq!(machine.download(&step.status)[0], 0, "the predictor has learned");
        step.left(machine)
    };
    let (dw, state, remembered) = run(0);
    assert!(dw.iter().all(|&bits| f32::from_bits(bits).is_finite()));
    assert!(state != step.first[0] && remembered != step.first[1]);
    assert!(run(1 << 20).0 != dw, "other draws");
    assert!(run(0) == (dw, state, remembered), "the same again");
}

#[test]
fn a_captured_step_draws_anew_at_each_replay() {
    [Packing::Native, Packing::Bits4].into_iter().for_each(captured_steps_draw_anew);
}

fn captured_steps_draw_anew(packing: Packing) {
    let Some(mut machine) = Machine::gpu() else { return };
    let step = Step::new(&machine, machine.device(), packing);
    // All launches run once before, as in frameworks, and their results are the expected ones.
    let direct = [0, 1 << 20].map(|further| {
        step.restart(&machine, further);
        step.enqueue(&mut machine);
        step.left(&machine)
    });
    assert!(direct[0].0 != direct[1].0);

    let stream = result::stream::create(result::stream::StreamKind::NonBlocking).expect("a stream");
    machine.set_stream(Stream(stream.cast()));
    // SAFETY: stream and graph live until the end of the test, in the context that `Machine::gpu` made current.
    let (graph, ready) = unsafe {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        result::stream::begin_capture(stream, mode).expect("captures");
        step.enqueue(&mut machine);
        let graph = result::stream::end_capture(stream).expect("nothing that cannot be captured");
        (graph, result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)).expect("a graph"))
    };
    for (further, expected) in [0, 1 << 20, 0].into_iter().zip([&direct[0], &direct[1], &direct[0]]) {
        step.restart(&machine, further);
        // SAFETY: as above.
        unsafe { result::graph::launch(ready, stream) }.expect("replays");
        assert!(step.left(&machine) == *expected, "further offset {further}");
    }
    // SAFETY: downloading waited for all replays.
    unsafe {
        result::graph::exec_destroy(ready).expect("destroyed");
        result::graph::destroy(graph).expect("destroyed");
        result::stream::destroy(stream).expect("destroyed");
    }
}
