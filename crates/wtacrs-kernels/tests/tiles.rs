//! A block's way into shared memory and out of it, on the emulator: tiles of a matrix with edges, and results written to one.

use half::{bf16, f16};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use wtacrs_kernels::kernel::body::block::output::Destination;
use wtacrs_kernels::kernel::body::block::tile::{ANY, CHUNK, Layout, Loader, RAGGED, WHOLE};
use wtacrs_kernels::kernel::body::element::{Bf16, F16, F32};
use wtacrs_kernels::kernel::matrix::DataType;
use wtacrs_simt::emulator::{Launch, launch};
use wtacrs_simt::index::thread;
use wtacrs_simt::memory::U32x4;
use wtacrs_simt::shared::Shared;
use wtacrs_simt::{cp_async, sync};

/// 16 rows of 8 chunks, in two passes.
struct Tile;

impl Layout for Tile {
    const ROW_BYTES: u32 = 128;
    const ROWS: u32 = 16;
    const THREADS: u32 = 64;

    fn flip(row: u32) -> u32 {
        row % 8
    }
}

const STAGES: u32 = 2;
/// Other things lie before the tile in each stage.
const OFFSET: u32 = 256;
const STAGE: u32 = OFFSET + Tile::BYTES;
const MATRIX_ROWS: u32 = 9;

/// Which row of the matrix goes to a row of a stage's tile, and whether any does.
fn source(stage: u32, row: u32) -> (u32, bool) {
    ((row * 5 + stage) % MATRIX_ROWS, (row + stage) % 4 != 1)
}

/// The address of a place in the matrix.
#[derive(Clone, Copy)]
struct From(*const u8);

// SAFETY: it is only read.
unsafe impl Sync for From {}

impl From {
    fn pointer(&self) -> *const u8 {
        self.0
    }
}

/// Tiles of the columns from byte `first` on, of rows of `row_bytes` bytes.
fn check<const ROWS: u32>(element: u32, row_bytes: u32, leading: u32, first: u32, shift: usize, seed: u64) {
    // Aligned to 16, no two bytes in a row alike.
    let bytes = shift as u32 + MATRIX_ROWS * leading;
    let memory: Vec<U32x4> = (0..bytes.div_ceil(16))
        .map(|i| U32x4(std::array::from_fn(|j| (4 * i + j as u32 + 1).wrapping_mul(0x9e37_79b9) | 0x0101_0101)))
        .collect();
    let matrix = From(memory.as_ptr().cast::<u8>().wrapping_add(shift));
    let chunks: Vec<[AtomicU32; 4]> = (0..STAGES * Tile::ROWS * Tile::CHUNKS).map(|_| Default::default()).collect();
    let shape =
        Launch { grid: [1, 1, 1], block: Tile::THREADS, shared_bytes: STAGES * STAGE, cooperative: false, seed };
    let kernel = || {
        let stages = Shared::<U32x4>::new(0, STAGES * STAGE / CHUNK);
        let (own_row, own_chunk) = Tile::share(thread());
        // SAFETY: the matrix has the rows that `source` names; tiles are read behind the barrier.
        unsafe {
            let mut loader =
                Loader::<Tile>::new(matrix.pointer(), leading, u64::from(first), u64::from(row_bytes), stages, OFFSET);
            for stage in 0..STAGES {
                for pass in 0..Tile::PASSES {
                    let (row, present) = source(stage, loader.row(pass));
                    loader.copy::<ROWS>(pass, row, present, element);
                }
                loader.advance(STAGE as i32);
            }
            cp_async::commit();
            cp_async::wait::<0>();
            sync::barrier();
            for (stage, pass) in (0..STAGES).flat_map(|stage| (0..Tile::PASSES).map(move |pass| (stage, pass))) {
                let row = own_row + pass * Tile::ROWS_PER_PASS;
                // A chunk that another thread loaded.
                let chunk = (own_chunk + 1) % Tile::CHUNKS;
                let words = stages.read((stage * STAGE + OFFSET + Tile::offset(row, chunk)) / CHUNK).0;
                let to = &chunks[((stage * Tile::ROWS + row) * Tile::CHUNKS + chunk) as usize];
                to.iter().zip(words).for_each(|(to, word)| to.store(word, Relaxed));
            }
        }
    };
    launch(shape, &kernel).expect("no fault");

    // SAFETY: the memory holds so many bytes.
    let bytes = unsafe { std::slice::from_raw_parts(matrix.pointer(), (MATRIX_ROWS * leading) as usize) };
    for (i, found) in chunks.iter().enumerate() {
        let (stage, row) = (i as u32 / Tile::CHUNKS / Tile::ROWS, i as u32 / Tile::CHUNKS % Tile::ROWS);
        let (from, present) = source(stage, row);
        let byte = |b: u32| {
            let column = first + i as u32 % Tile::CHUNKS * CHUNK + b;
            if present && column < row_bytes { bytes[(from * leading + column) as usize] } else { 0 }
        };
        for (word, found) in (0..4).zip(found) {
            let expected = u32::from_le_bytes(std::array::from_fn(|b| byte(4 * word + b as u32)));
            assert_eq!(found.load(Relaxed), expected, "stage {stage}, row {row}, chunk {}, word {word}", i % 8);
        }
    }
}

#[test]
fn tiles_of_whole_chunks() {
    for (first, seed) in [(0, 0), (128, 1), (0, 2)] {
        check::<WHOLE>(2, 160, 176, first, 0, seed);
        check::<WHOLE>(4, 128, 128, first.min(112), 16, seed);
    }
}

#[test]
fn tiles_whose_last_chunk_is_a_part() {
    for (first, seed) in [(0, 0), (128, 1), (0, 2)] {
        check::<RAGGED>(2, 142, 144, first, 0, seed);
        check::<RAGGED>(2, 130, 160, first, 16, seed);
    }
}

#[test]
fn tiles_of_words_and_halves() {
    for seed in 0..3 {
        for first in [0, 128] {
            check::<ANY>(4, 148, 156, first, 4, seed);
            check::<ANY>(2, 142, 146, first, 2, seed);
        }
        // Nothing of the tile lies in the matrix.
        check::<ANY>(2, 128, 130, 128, 6, seed);
        check::<ANY>(4, 128, 132, 256, 8, seed);
    }
}

/// An element type as bits.
fn narrow(output: DataType, value: f32) -> u32 {
    match output {
        DataType::F32 => value.to_bits(),
        DataType::F16 => f16::from_f32(value).to_bits().into(),
        DataType::Bf16 => bf16::from_f32(value).to_bits().into(),
        _ => panic!("{output} is not tested"),
    }
}

fn widen(output: DataType, bits: u32) -> f32 {
    match output {
        DataType::F32 => f32::from_bits(bits),
        DataType::F16 => f16::from_bits(bits as u16).to_f32(),
        DataType::Bf16 => bf16::from_bits(bits as u16).to_f32(),
        _ => panic!("{output} is not tested"),
    }
}

/// A place that every thread writes a part of.
#[derive(Clone, Copy)]
struct To(*mut u8);

// SAFETY: threads write elements of their own.
unsafe impl Sync for To {}

impl To {
    fn pointer(&self) -> *mut u8 {
        self.0
    }
}

#[test]
fn results_are_written_where_they_belong() {
    const ROWS: usize = 4;
    // Thread t has row t / 8, and four columns from 4 (t % 8) on, of which some lie beyond the matrix.
    let value = |row: usize, column: usize| 1.0 + (row * 37 + column * 11 % 29) as f32 / 7.0;
    for output in [DataType::F32, DataType::F16, DataType::Bf16] {
        for (columns, leading, shift) in [(32, 32, 0), (32, 36, 4), (30, 32, 0), (27, 29, 1), (3, 5, 2), (28, 40, 3)] {
            for accumulate in [false, true] {
                let bytes = output.bytes() as usize;
                let old = |at: usize| narrow(output, (at % 13) as f32 / 3.0);
                let len = shift + ROWS * leading;
                let mut memory = vec![U32x4::default(); (len * bytes).div_ceil(16)];
                let to = To(memory.as_mut_ptr().cast());
                // SAFETY: within the memory; elements are aligned to their size.
                let access = |at: usize, new: Option<u32>| unsafe {
                    match (bytes, new) {
                        (4, Some(bits)) => to.pointer().cast::<u32>().add(at).write(bits),
                        (_, Some(bits)) => to.pointer().cast::<u16>().add(at).write(bits as u16),
                        (4, None) => return to.pointer().cast::<u32>().add(at).read(),
                        (_, None) => return to.pointer().cast::<u16>().add(at).read().into(),
                    }
                    0
                };
                (0..len).for_each(|at| {
                    access(at, Some(old(at)));
                });
                let shape = Launch { grid: [1, 1, 1], block: 32, shared_bytes: 0, cooperative: false, seed: 0 };
                let kernel = || {
                    let (row, column) = (thread() / 8, thread() % 8 * 4);
                    let values = std::array::from_fn(|i| value(row as usize, column as usize + i));
                    let matrix = to.pointer().wrapping_add(shift * bytes);
                    // SAFETY: the matrix has four rows of so many columns.
                    unsafe {
                        let to = Destination::new(matrix, leading as u64, columns, output as u32, accumulate);
                        let old = to.fetch(row, column);
                        match output {
                            DataType::F32 => to.put::<F32>(row, column, values, old),
                            DataType::F16 => to.put::<F16>(row, column, values, old),
                            _ => to.put::<Bf16>(row, column, values, old),
                        }
                    }
                };
                launch(shape, &kernel).expect("no fault");
                for at in 0..len {
                    let (row, column) = (at.wrapping_sub(shift) / leading, at.wrapping_sub(shift) % leading);
                    let is_inside = at >= shift && column < columns as usize;
                    let added = if accumulate { widen(output, old(at)) } else { 0.0 };
                    let expected = if is_inside { narrow(output, value(row, column) + added) } else { old(at) };
                    let case = (output, columns, leading, shift, accumulate);
                    assert_eq!(access(at, None), expected, "{case:?}: row {row}, column {column}");
                }
            }
        }
    }
}
