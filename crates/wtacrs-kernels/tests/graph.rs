//! A step captured in a CUDA graph draws anew at each replay, and does what direct launches do. Only on a GPU: the
//! emulator has no graphs.

mod common;

use common::{Buffer, Machine};
use cudarc::driver::{result, sys};
use std::ptr;
use wtacrs_core::Keep;
use wtacrs_core::product::Update;
use wtacrs_kernels::launch::driver::Stream;
use wtacrs_kernels::plan::{
    BackwardBuffers, DataType, ForwardBuffers, LinearPlan, LinearSettings, Memory, Randomness, WeightSource,
};

const TOKENS: usize = 2048;
const FEATURES: usize = 256;

struct Step {
    plan: LinearPlan,
    h: Buffer<f32>,
    dz: Buffer<f32>,
    norms: Buffer<f32>,
    saved: Buffer<u8>,
    scratch: [Buffer<u8>; 2],
    dw: Buffer<f32>,
    further: Buffer<u64>,
}

impl Step {
    fn new(machine: &Machine) -> Self {
        let settings = LinearSettings {
            weights: WeightSource::Norms,
            ..LinearSettings::new(TOKENS, FEATURES, FEATURES, Keep::Fraction(0.2)).of_type(DataType::F32)
        };
        let plan = LinearPlan::new(settings, machine.device()).expect("valid");
        let values = |seed: usize| -> Vec<f32> {
            (0..TOKENS * FEATURES).map(|i| ((i * 37 + i / 91 * seed) % 113) as f32 / 56.0 - 1.0).collect()
        };
        let room = |bytes: u64| machine.filled::<u8>(bytes as usize, 0xff);
        Self {
            h: machine.upload(&values(3)),
            dz: machine.upload(&values(5)),
            norms: machine.upload(&(0..TOKENS).map(|i| 1.0 / (1 + i % 97) as f32).collect::<Vec<_>>()),
            saved: room(plan.saved().bytes),
            scratch: [plan.forward_scratch_bytes(), plan.backward_scratch_bytes()].map(room),
            dw: machine.filled(FEATURES * FEATURES, 0xff),
            further: machine.upload(&[0]),
            plan,
        }
    }

    /// Forward and backward on the machine's stream.
    fn enqueue(&self, machine: &mut Machine) {
        let memory = |of: &Buffer<u8>| Memory { at: of.bytes(), bytes: of.len() as u64 };
        let [forward_scratch, backward_scratch] = &self.scratch;
        let forward = ForwardBuffers {
            input: self.h.bytes(),
            guess: self.norms.pointer(),
            placement: std::ptr::null(),
            cached: std::ptr::null(),
            saved: memory(&self.saved),
            scratch: memory(forward_scratch),
        };
        let backward = BackwardBuffers {
            saved: memory(&self.saved),
            gradient: self.dz.bytes(),
            gradient_norms: ptr::null_mut(),
            weight_gradient: self.dw.bytes(),
            bias_gradient: ptr::null_mut(),
            update: Update::Overwrite,
            scratch: memory(backward_scratch),
        };
        let randomness = Randomness { further_offset: self.further.pointer(), ..Randomness::new(4, 9) };
        // SAFETY: all buffers have the plan's sizes and outlive what is enqueued.
        unsafe {
            self.plan.forward(machine, &forward, randomness).expect("launches");
            self.plan.backward(machine, &backward).expect("launches");
        }
    }

    fn bits(&self, machine: &Machine) -> Vec<u32> {
        machine.download(&self.dw).into_iter().map(f32::to_bits).collect()
    }
}

#[test]
fn a_captured_step_draws_anew_at_each_replay() {
    let Some(mut machine) = Machine::gpu() else { return };
    let step = Step::new(&machine);
    // All launches happen once before, as frameworks do, and to know what to expect.
    let direct = [0, 1 << 20].map(|further| {
        machine.write(&step.further, &[further]);
        step.enqueue(&mut machine);
        step.bits(&machine)
    });
    assert_ne!(direct[0], direct[1]);

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
        machine.write(&step.further, &[further]);
        machine.write(&step.dw, &vec![f32::NAN; FEATURES * FEATURES]);
        // SAFETY: as above.
        unsafe { result::graph::launch(ready, stream) }.expect("replays");
        assert_eq!(&step.bits(&machine), expected, "further offset {further}");
    }
    // SAFETY: downloading waited for all replays.
    unsafe {
        result::graph::exec_destroy(ready).expect("destroyed");
        result::graph::destroy(graph).expect("destroyed");
        result::stream::destroy(stream).expect("destroyed");
    }
}
