//! Selections by the kernel, and the same by the CPU path of wtacrs-core.
#![allow(dead_code, unreachable_pub)]

use crate::common::{BY_PTX_TOO, Machine, only_gpu};
use std::cell::RefCell;
use wtacrs_core::Randomness;
use wtacrs_core::sampling::PhiloxChance;
use wtacrs_core::sampling::design::{BuiltIn, Design as _};
use wtacrs_core::sampling::{Keep, Selection, Weights};
use wtacrs_kernels::kernel::select::{self, Args, Design, SourceKind, WeightsArgs};
use wtacrs_kernels::kernel::{SELECT_WEIGHTS, select_kernel};
use wtacrs_kernels::launch::{Emulator, Shape};
use wtacrs_ptx::Traffic;

pub const DESIGNS: [(Design, BuiltIn); 6] = [
    (Design::Uniform, BuiltIn::Uniform),
    (Design::Crs, BuiltIn::Crs),
    (Design::TopK, BuiltIn::TopK),
    (Design::WtaIid, BuiltIn::WtaIid),
    (Design::WtaStratified, BuiltIn::WtaStratified),
    (Design::WtaPivotal, BuiltIn::WtaPivotal),
];

/// Problems of one launch, one after another in `input_norms` and `other`.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    pub input_norms: &'a [f32],
    pub other: &'a [f32],
    pub source: SourceKind,
    pub problems: usize,
    pub budget: usize,
    pub mix: f64,
    pub clamp: f64,
    pub seed: u64,
    pub offset: u64,
    pub further_offset: Option<u64>,
    pub first_stream: u32,
    pub stream_step: u32,
}

impl<'a> Batch<'a> {
    /// One problem of ready weights.
    pub fn of(weights: &'a [f32], budget: usize) -> Self {
        Self {
            input_norms: weights,
            other: &[],
            source: SourceKind::Input,
            problems: 1,
            budget,
            mix: 0.01,
            clamp: 6.0,
            seed: 0x0123_4567_89ab_cdef,
            offset: 77,
            further_offset: None,
            first_stream: 3,
            stream_step: 1,
        }
    }

    pub fn pairs(&self) -> usize {
        self.input_norms.len() / self.problems
    }
}

/// Blocks of a problem, threads of a block, and the emulator's seed.
#[derive(Clone, Copy, Debug)]
pub struct Geometry(pub u32, pub u32, pub u64);

/// The kernel's results: status, winners, and indices with scales.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub status: u32,
    pub winners: u64,
    pub indices: Vec<u32>,
    pub scales: Vec<f64>,
}

/// Runs the kernel on the emulator, by its PTX, and, if there is a GPU, there as well, with the same result.
pub fn run(batch: &Batch<'_>, design: Design, geometry: Geometry) -> Vec<Found> {
    thread_local! {
        static GPU: RefCell<Option<Machine>> = RefCell::new(Machine::gpu());
    }
    let found = run_on(&mut Machine::emulator(geometry.2), batch, design, geometry);
    if BY_PTX_TOO && !only_gpu() {
        let by_ptx = run_on(&mut Machine::ptx(geometry.2), batch, design, geometry);
        assert_eq!(by_ptx, found, "PTX of {design:?}, {geometry:?}");
    }
    GPU.with_borrow_mut(|gpu| {
        if let Some(gpu) = gpu {
            assert_eq!(run_on(gpu, batch, design, geometry), found, "{design:?}, {geometry:?}");
        }
    });
    found
}

fn run_on(machine: &mut Machine, batch: &Batch<'_>, design: Design, geometry: Geometry) -> Vec<Found> {
    let shape = select::shape_with(batch.pairs() as u32, batch.problems as u32, design, geometry.0, geometry.1);
    // SAFETY: memory of the sizes that `Args` says.
    in_memory(machine, batch, design, shape, |machine, args| unsafe { machine.run(select_kernel(design), shape, args) })
        .0
}

/// Operations of a launch that take time on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Barriers of a block.
    pub barriers: u64,
    /// Rounds in which blocks exchange values: the number that the last round left in the exchange.
    pub rounds: u64,
}

/// The cost of one problem, counted on the emulator.
pub fn cost(batch: &Batch<'_>, design: Design, shape: Shape) -> Cost {
    let mut barriers = 0;
    let (_, exchange) = in_memory(&mut Machine::emulator(0), batch, design, shape, |_, args| {
        // SAFETY: as above.
        let counts = unsafe { Emulator::default().count(select_kernel(design), shape, args) };
        barriers = counts.expect("no fault").barriers;
    });
    let rounds = exchange.iter().map(|place| place >> 32).max().unwrap_or(0);
    Cost { barriers, rounds }
}

/// What one problem asks of memory, counted in the kernel's PTX.
pub fn traffic(batch: &Batch<'_>, design: Design, shape: Shape) -> Traffic {
    let mut machine = Machine::measured();
    // SAFETY: as above.
    in_memory(&mut machine, batch, design, shape, |machine, args| unsafe {
        machine.run(select_kernel(design), shape, args);
    });
    machine.traffic()[0].1
}

/// Launches, and returns the results and the exchange. Memory that the kernel must not read is filled with garbage.
fn in_memory(
    machine: &mut Machine,
    batch: &Batch<'_>,
    design: Design,
    shape: Shape,
    launch: impl FnOnce(&mut Machine, &Args),
) -> (Vec<Found>, Vec<u64>) {
    let (problems, pairs, budget) = (batch.problems, batch.pairs() as u32, batch.budget as u32);
    let scratch = machine.filled::<u8>(problems * select::scratch_bytes(pairs, budget, design) as usize, 0x91);
    let indices = machine.unwritten::<u32>(problems * batch.budget);
    let scales = machine.unwritten::<f64>(problems * batch.budget);
    let (count, status) = (machine.unwritten::<u32>(problems), machine.unwritten::<u32>(problems));
    let winners = machine.unwritten::<u64>(problems);
    let exchange = machine.filled::<u64>(problems * select::exchange_words(shape) as usize, 0);
    let (input_norms, other) = (machine.upload(batch.input_norms), machine.upload(batch.other));
    let further_offset = machine.upload(&[batch.further_offset.unwrap_or(0)]);
    let args = Args {
        input_norms: input_norms.pointer(),
        other: if batch.other.is_empty() { std::ptr::null() } else { other.pointer() },
        source: batch.source as u32,
        pairs,
        budget,
        mix: batch.mix,
        clamp: batch.clamp,
        seed: batch.seed,
        offset: batch.offset,
        further_offset: batch.further_offset.map_or(std::ptr::null(), |_| further_offset.pointer()),
        first_stream: batch.first_stream,
        stream_step: batch.stream_step,
        indices: indices.pointer(),
        scales: scales.pointer(),
        count: count.pointer(),
        winners: winners.pointer(),
        status: status.pointer(),
        scratch: scratch.pointer(),
        exchange: exchange.pointer(),
    };
    launch(machine, &args);
    let (indices, scales) = (machine.download(&indices), machine.download(&scales));
    let (count, status) = (machine.download(&count), machine.download(&status));
    let winners = machine.download(&winners);
    let found = (0..problems)
        .map(|problem| {
            let first = problem * batch.budget;
            let kept = first..first + count[problem] as usize;
            let rest = kept.end..first + batch.budget;
            assert!(indices[rest.clone()].iter().all(|&i| i == u32::MAX) && scales[rest].iter().all(|s| s.is_nan()));
            Found {
                status: status[problem],
                winners: winners[problem],
                indices: indices[kept.clone()].to_vec(),
                scales: scales[kept].to_vec(),
            }
        })
        .collect();
    (found, machine.download(&exchange))
}

/// The weights that the kernel makes.
pub fn weights_on(machine: &mut Machine, batch: &Batch<'_>) -> Vec<f64> {
    let (input_norms, other) = (machine.upload(batch.input_norms), machine.upload(batch.other));
    let weights = machine.unwritten::<f64>(batch.input_norms.len());
    let pairs = batch.pairs() as u32;
    let args = WeightsArgs {
        input_norms: input_norms.pointer(),
        other: if batch.other.is_empty() { std::ptr::null() } else { other.pointer() },
        source: batch.source as u32,
        pairs,
        mix: batch.mix,
        clamp: batch.clamp,
        weights: weights.pointer(),
    };
    // SAFETY: memory of the sizes that the arguments say.
    unsafe { machine.run(&SELECT_WEIGHTS, select::weights_shape(pairs, batch.problems as u32), &args) };
    machine.download(&weights)
}

/// The selection of wtacrs-core.
pub fn by_core(weights: &Weights, budget: usize, design: BuiltIn, seed: u64, offset: u64, stream: u32) -> Found {
    let budget = weights.budget(Keep::Rows(budget)).expect("fits");
    let selection: Selection =
        design.select(weights, budget, &mut PhiloxChance::with_stream(Randomness::new(seed, offset), stream));
    Found {
        status: 0,
        winners: selection.winners() as u64,
        indices: selection.indices().to_vec(),
        scales: selection.scales().to_vec(),
    }
}

/// The kernel's selections are those of core with these weights, one set for each problem.
pub fn check(batch: &Batch<'_>, weights: &[Weights], design: (Design, BuiltIn), geometry: Geometry) {
    let found = run(batch, design.0, geometry);
    for (problem, (found, weights)) in found.iter().zip(weights).enumerate() {
        let offset = batch.offset.wrapping_add(batch.further_offset.unwrap_or(0));
        let stream = batch.first_stream.wrapping_add(problem as u32 * batch.stream_step);
        let expected = by_core(weights, batch.budget, design.1, batch.seed, offset, stream);
        assert_eq!(
            (&found.indices, found.winners, found.status),
            (&expected.indices, expected.winners, 0),
            "{}, {geometry:?}, problem {problem}: {batch:?}",
            design.1
        );
        let bits = |scales: &[f64]| scales.iter().map(|s| s.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&found.scales), bits(&expected.scales), "{}, {geometry:?}, problem {problem}", design.1);
    }
}
