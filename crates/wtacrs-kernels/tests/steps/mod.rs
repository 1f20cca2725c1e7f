//! A layer's forward and backward pass on a machine, from host data to host data.
#![allow(dead_code, unreachable_pub)]

use crate::common::{Buffer, Machine};
use half::{bf16, f16};
use ndarray::ArrayView2;
use wtacrs_core::element::Element;
use wtacrs_core::product::Update;
use wtacrs_kernels::plan::{
    BackwardBuffers, ColumnsPlan, DataType, DeviceRandomness, ForwardBuffers, LinearPlan, Memory, Part, SavedParts,
    Strides,
};

/// An element type on both sides.
pub trait Data: Element<Accumulator = f32> {
    const TYPE: DataType;

    fn from_number(value: f32) -> Self;
}

impl Data for f32 {
    const TYPE: DataType = DataType::F32;

    fn from_number(value: f32) -> Self {
        value
    }
}

impl Data for f16 {
    const TYPE: DataType = DataType::F16;

    fn from_number(value: f32) -> Self {
        Self::from_f32(value)
    }
}

impl Data for bf16 {
    const TYPE: DataType = DataType::Bf16;

    fn from_number(value: f32) -> Self {
        Self::from_f32(value)
    }
}

/// Uses the saved memory and the norms of dZ at the end of a step.
pub type Then<'a> = dyn Fn(&mut Machine, Memory, *const f32) + 'a;

/// The input of a step: all elements of H and of dZ in the order of memory.
pub struct Given<'a, T> {
    h: Vec<T>,
    dz: Vec<T>,
    guess: &'a [f32],
    randomness: DeviceRandomness,
    /// A predictor's θ and the numbers that place its guesses, in device memory, in place of the guess.
    pub predictor: Option<(*const f32, *const f64)>,
    /// The old value of dW's elements; if it is not zero, dW is added to.
    pub old_dw: f32,
    pub then: Option<&'a Then<'a>>,
}

impl<'a, T: Copy> Given<'a, T> {
    pub fn new(h: ArrayView2<'_, T>, dz: ArrayView2<'_, T>, guess: &'a [f32], randomness: DeviceRandomness) -> Self {
        let values = |of: ArrayView2<'_, T>| of.iter().copied().collect();
        Self { h: values(h), dz: values(dz), guess, randomness, predictor: None, old_dw: 0.0, then: None }
    }
}

/// The results of one problem.
#[derive(Debug)]
pub struct Outcome {
    pub status: u32,
    pub count: u32,
    /// Of the rows that count; made up where all rows are packed.
    pub indices: Vec<u32>,
    pub scales: Vec<f64>,
    /// None where all rows are packed.
    pub input_norms: Vec<f32>,
    pub dz_norms: Vec<f32>,
    /// Row by row.
    pub dw: Vec<f32>,
    /// The bias gradient, if the plan was made for it.
    pub bias: Vec<f32>,
    /// The elements between dW's rows and behind them.
    pub dw_between: Vec<f32>,
}

/// Sizes of one problem, and how many there are.
struct Sizes {
    batch: usize,
    tokens: usize,
    kept: usize,
    /// dW.
    rows: usize,
    columns: usize,
    strides: Strides,
    /// Entries of the bias gradient.
    bias: usize,
}

/// A linear layer, with dW in f32.
pub fn run<T: Copy>(machine: &mut Machine, plan: &LinearPlan, given: &Given<'_, T>) -> Vec<Outcome> {
    let settings = plan.settings();
    let (rows, columns) = (settings.in_features, settings.out_features);
    let sizes = Sizes {
        batch: settings.batch,
        tokens: settings.tokens,
        kept: plan.kept_rows(),
        rows,
        columns,
        strides: settings.weight_gradient_strides.unwrap_or(Strides::even(columns, rows * columns)),
        bias: if settings.bias_gradient { columns } else { 0 },
    };
    let bytes = [plan.forward_scratch_bytes(), plan.backward_scratch_bytes()];
    execute(
        machine,
        given,
        &sizes,
        (plan.saved(), bytes, plan.input_norms()),
        |machine, forward, randomness| {
            // SAFETY: `execute` makes buffers of the plan's sizes.
            unsafe { plan.forward(machine, &forward, randomness) }
        },
        |machine, backward| {
            // SAFETY: as above.
            unsafe { plan.backward(machine, &backward) }
        },
    )
}

/// A sum over columns of `items` problems of so many columns, with results of rows × inner in f32, dense or strided.
pub fn run_columns<T: Copy>(
    machine: &mut Machine,
    plan: &ColumnsPlan,
    given: &Given<'_, T>,
    [items, columns, rows, inner]: [usize; 4],
    strides: Option<Strides>,
) -> Vec<Outcome> {
    let sizes = Sizes {
        batch: items,
        tokens: columns,
        kept: plan.kept_columns(),
        rows,
        columns: inner,
        strides: strides.unwrap_or(Strides::even(inner, rows * inner)),
        bias: 0,
    };
    let bytes = [plan.forward_scratch_bytes(), plan.backward_scratch_bytes()];
    execute(
        machine,
        given,
        &sizes,
        (plan.saved(), bytes, plan.input_norms()),
        |machine, forward, randomness| {
            // SAFETY: `execute` makes buffers of the plan's sizes.
            unsafe { plan.forward(machine, &forward, randomness) }
        },
        |machine, backward| {
            // SAFETY: as above.
            unsafe { plan.backward(machine, &backward) }
        },
    )
}

fn execute<T: Copy, E: std::fmt::Display>(
    machine: &mut Machine,
    given: &Given<'_, T>,
    sizes: &Sizes,
    (parts, [forward_bytes, backward_bytes], input_norms): (&SavedParts, [u64; 2], Part),
    forward: impl FnOnce(&mut Machine, ForwardBuffers, DeviceRandomness) -> Result<(), E>,
    backward: impl FnOnce(&mut Machine, BackwardBuffers) -> Result<(), E>,
) -> Vec<Outcome> {
    let &Sizes { batch, tokens, kept, rows, columns, strides, bias } = sizes;
    // Old bits everywhere: NaN as numbers, far too large as indices.
    let room = |machine: &Machine, bytes: u64| machine.unwritten::<u8>(bytes as usize);
    let memory = |of: &Buffer<u8>| Memory { at: of.bytes(), bytes: of.len() as u64 };
    let (h, dz, guess) = (machine.upload(&given.h), machine.upload(&given.dz), machine.upload(given.guess));
    let saved = room(machine, parts.bytes);
    let scratch = room(machine, forward_bytes);
    let ok = |done: Result<(), E>| done.unwrap_or_else(|error| panic!("{error}"));
    let buffers = ForwardBuffers {
        input: h.bytes(),
        guess: given.predictor.map_or(guess.pointer().cast_const(), |(theta, _)| theta),
        placement: given.predictor.map_or(std::ptr::null(), |(_, placement)| placement),
        cached: std::ptr::null(),
        saved: memory(&saved),
        scratch: memory(&scratch),
    };
    ok(forward(machine, buffers, given.randomness));
    let input_norms = part::<f32>(machine, &scratch, input_norms);
    drop((scratch, h));

    let scratch = room(machine, backward_bytes);
    let dz_norms = machine.unwritten::<f32>(batch * tokens);
    let behind = 7;
    let begin = |b: usize| strides.matrices.of(b as u32) as usize;
    let last = (0..batch).map(begin).max().expect("a batch of some");
    let len = last + (rows - 1) * strides.row + columns + behind;
    let accumulates = given.old_dw != 0.0;
    let old = |len| if accumulates { machine.upload(&vec![given.old_dw; len]) } else { machine.unwritten(len) };
    let (dw, bias_gradient) = (old(len), old(batch * bias));
    let buffers = BackwardBuffers {
        saved: memory(&saved),
        gradient: dz.bytes(),
        gradient_norms: dz_norms.pointer(),
        weight_gradient: dw.bytes(),
        bias_gradient: if bias > 0 { bias_gradient.pointer() } else { std::ptr::null_mut() },
        update: if accumulates { Update::Accumulate } else { Update::Overwrite },
        scratch: memory(&scratch),
    };
    ok(backward(machine, buffers));
    if let Some(then) = given.then {
        then(machine, memory(&saved), dz_norms.pointer());
    }

    let (indices, scales) = (part::<u32>(machine, &saved, parts.indices), part::<f64>(machine, &saved, parts.scales));
    let mut count = part::<u32>(machine, &saved, parts.count);
    let status = parts.statuses(&part::<u32>(machine, &saved, parts.status));
    let is_chosen = parts.count.bytes > 0;
    if !is_chosen {
        // All rows are packed, and all count unless one is invalid.
        count = status.iter().map(|&status| if status == 0 { tokens as u32 } else { 0 }).collect();
    }
    let (dw, dz_norms) = (machine.download(&dw), machine.download(&dz_norms));
    let bias_gradient = machine.download(&bias_gradient);
    (0..batch)
        .map(|b| {
            let used = count[b] as usize;
            let matrix = &dw[begin(b)..];
            let row = |i: usize| &matrix[i * strides.row..];
            let next = (row(rows - 1).len() - columns).min(behind);
            let mut between: Vec<f32> = (0..rows - 1).flat_map(|i| row(i)[columns..strides.row].to_vec()).collect();
            if b + 1 == batch {
                between.extend(&row(rows - 1)[columns..][..next]);
            }
            Outcome {
                status: status[b],
                count: count[b],
                indices: if is_chosen { indices[b * kept..][..used].to_vec() } else { (0..used as u32).collect() },
                scales: if is_chosen { scales[b * kept..][..used].to_vec() } else { vec![1.0; used] },
                input_norms: if is_chosen { input_norms[b * tokens..][..tokens].to_vec() } else { Vec::new() },
                dz_norms: dz_norms[b * tokens..][..tokens].to_vec(),
                dw: (0..rows).flat_map(|i| row(i)[..columns].to_vec()).collect(),
                bias: bias_gradient[b * bias..][..bias].to_vec(),
                dw_between: between,
            }
        })
        .collect()
}

/// The values of a part.
fn part<T: Copy>(machine: &Machine, memory: &Buffer<u8>, part: Part) -> Vec<T> {
    let bytes = machine.download(memory);
    let values = &bytes[part.offset as usize..][..part.bytes as usize];
    // SAFETY: any bytes are a number; reads need no alignment.
    values.chunks_exact(size_of::<T>()).map(|chunk| unsafe { chunk.as_ptr().cast::<T>().read_unaligned() }).collect()
}
