//! Packed rows against their definition, to the bit, and unpacked rows against it, scaled and rounded once.

use crate::common::{Buffer, Machine, for_each_machine};
use crate::matrices::{Place, Tested, Uploaded, noise};
use half::{bf16, f16};
use ndarray::Array2;
use proptest::prelude::*;
use std::ptr;
use wtacrs_exact::packing::{self, Bits, Groups, PackingBits};
use wtacrs_exact::random::Randomness;
use wtacrs_kernels::kernel::packed_rows::{GroupShares, PackedRows, row_words};
use wtacrs_kernels::kernel::{gather_pack, unpack_rows};

const ALL_BITS: [Bits; 3] = [Bits::Bits8, Bits::Bits4, Bits::Bits2];
const RANDOMNESS: Randomness = Randomness { seed: 0x1234_5678_9abc_def0, offset: u64::MAX - 3 };
const FURTHER: u64 = 1 << 33;
const STREAMS: [u32; 2] = [1, 2];

/// Which rows are packed; without indices all of them.
struct Kept {
    rows: usize,
    indices: Option<Vec<u32>>,
    scales: Option<Vec<f64>>,
    count: Option<Vec<u32>>,
}

/// Packed rows in a machine's memory.
struct Packed {
    codes: Buffer<u32>,
    grids: Buffer<u32>,
    origin: Buffer<u64>,
    faults: Buffer<u32>,
    rows: PackedRows,
    batch: usize,
    indices: Option<Buffer<u32>>,
    count: Option<Buffer<u32>>,
}

fn pointer<T>(buffer: Option<&Buffer<T>>) -> *const T {
    buffer.map_or(ptr::null(), |buffer| buffer.pointer().cast_const())
}

fn pack<T: Tested>(machine: &mut Machine, items: &[Array2<T>], kept: &Kept, bits: Bits, place: Place) -> Packed {
    let (columns, batch) = (items[0].ncols(), items.len());
    let x = Uploaded::new(machine, items, place, T::from_f32(f32::NAN));
    let words = row_words(columns as u32, bits);
    let shares = GroupShares::new(kept.rows as u32, columns as u32, batch as u32);
    let all = batch * kept.rows;
    let codes = machine.filled::<u32>(all * words as usize, 0xff);
    let grids = machine.filled::<u32>(all * Groups::new(columns).count(), 0xff);
    let origin = machine.unwritten::<u64>(2);
    let faults = machine.unwritten::<u32>(batch * shares.blocks() as usize);
    let rows = PackedRows {
        shares,
        bits: bits.count(),
        codes: codes.pointer(),
        row_words: words,
        grids: grids.pointer(),
        origin: origin.pointer(),
        first_stream: STREAMS[0],
        stream_step: STREAMS[1],
    };
    let upload = |of: &Option<Vec<u32>>| of.as_ref().map(|values| machine.upload(values));
    let (indices, count) = (upload(&kept.indices), upload(&kept.count));
    let further = machine.upload(&[FURTHER]);
    let args = gather_pack::Args {
        x: x.pointer(),
        leading: x.leading(),
        spacing: x.spacing(),
        indices: pointer(indices.as_ref()),
        count: pointer(count.as_ref()),
        packed: rows,
        seed: RANDOMNESS.seed,
        offset: RANDOMNESS.offset,
        further_offset: further.pointer(),
        faults: faults.pointer(),
    };
    // SAFETY: the buffers have the sizes that the arguments say, and indices are of rows.
    unsafe { machine.run(&T::PACK, gather_pack::shape(&rows, batch as u32), &args) };
    Packed { codes, grids, origin, faults, rows, batch, indices, count }
}

/// Rows, and how many of each item count.
fn unpack<T: Tested>(machine: &mut Machine, packed: &Packed, scales: Option<&[f64]>) -> (Vec<Array2<T>>, Vec<u32>) {
    let (rows, batch) = (packed.rows.shares.rows as usize, packed.batch);
    let padded = Groups::new(packed.rows.shares.columns as usize).padded();
    let leading = padded + 16 / T::BYTES as usize;
    let out = machine.filled::<T>(batch * rows * leading, 0x41);
    let scales = scales.map(|scales| machine.upload(scales));
    let counted = machine.unwritten::<u32>(batch);
    let args = unpack_rows::Args {
        packed: packed.rows,
        indices: pointer(packed.indices.as_ref()),
        scales: pointer(scales.as_ref()),
        count: pointer(packed.count.as_ref()),
        faults: packed.faults.pointer(),
        fault_words: (packed.faults.len() / batch) as u32,
        counted: counted.pointer(),
        out: out.bytes(),
        out_leading: leading as u64,
        out_matrix: (rows * leading) as u64,
    };
    // SAFETY: as in `pack`.
    unsafe { machine.run(&T::UNPACK, unpack_rows::shape(&packed.rows, batch as u32), &args) };
    let values = machine.download(&out);
    let items =
        (0..batch).map(|b| Array2::from_shape_fn((rows, padded), |(i, j)| values[(b * rows + i) * leading + j]));
    (items.collect(), machine.download(&counted))
}

/// Rows with outliers, zeros of both signs, constants and subnormal numbers among noise.
fn rows_of<T: Tested>(rows: usize, columns: usize, seed: u64) -> Array2<T> {
    let mut x = noise::<T>(rows, columns, seed);
    for (i, mut row) in x.rows_mut().into_iter().enumerate() {
        match (i + seed as usize) % 7 {
            1 => row[columns / 2] = T::from_f32(-3e4),
            2 => row.fill(T::from_f32(0.0)),
            3 => row.fill(T::from_f32(-0.0)),
            4 => row.fill(T::from_f32(0.7)),
            5 => row.mapv_inplace(|value| T::from_f32(value.widen() * 1e-7)),
            _ => {}
        }
    }
    x
}

fn random(item: usize) -> PackingBits {
    PackingBits::new(RANDOMNESS.next(FURTHER), STREAMS[0] + item as u32 * STREAMS[1])
}

/// Packs and unpacks, and compares both with the definition.
fn check<T: Tested>(
    machine: &mut Machine,
    [batch, rows, columns]: [usize; 3],
    kept_rows: usize,
    bits: Bits,
    place: Place,
    seed: u64,
) {
    let items: Vec<_> = (0..batch as u64).map(|b| rows_of::<T>(rows, columns, seed + b)).collect();
    let number = |i: usize| wtacrs_exact::philox::bits(i as u128, seed) as u64;
    let is_all = kept_rows == rows;
    let counts: Vec<u32> =
        (0..batch).map(|b| if is_all { rows as u32 } else { (number(b) % (kept_rows as u64 + 1)) as u32 }).collect();
    let index = |b: usize, i: usize| if is_all { i } else { (i * rows / kept_rows + b) % rows };
    // Those beyond the count must not be looked at.
    let indices = (0..batch * kept_rows).map(|at| {
        let (b, i) = (at / kept_rows, at % kept_rows);
        if i < counts[b] as usize { index(b, i) as u32 } else { u32::MAX / 2 }
    });
    let scales: Vec<f64> = (0..batch * kept_rows).map(|i| 1.0 + (number(i) >> 40) as f64 / 3e5).collect();
    let kept = Kept {
        rows: kept_rows,
        indices: (!is_all).then(|| indices.collect()),
        scales: (!is_all).then_some(scales),
        count: (!is_all).then(|| counts.clone()),
    };
    let what = format!("{machine:?}, {batch} × {rows} × {columns}, {kept_rows}, {bits:?}, {place:?}");

    let packed = pack(machine, &items, &kept, bits, place);
    let origin = RANDOMNESS.next(FURTHER);
    assert_eq!(machine.download(&packed.origin), [origin.seed, origin.offset], "{what}");
    assert!(machine.download(&packed.faults).iter().all(|&fault| fault == 0), "{what}");
    let (unpacked, counted) = unpack::<T>(machine, &packed, kept.scales.as_deref());
    assert_eq!(counted, counts, "{what}");
    let (codes, grids) = (machine.download(&packed.codes), machine.download(&packed.grids));
    let groups = Groups::new(columns);
    let row_words = row_words(columns as u32, bits) as usize;
    for b in 0..batch {
        for i in 0..kept_rows {
            let at = b * kept_rows + i;
            let codes = &codes[at * row_words..][..row_words];
            let grids = &grids[at * groups.count()..][..groups.count()];
            let row = unpacked[b].row(i);
            if i >= counts[b] as usize {
                assert!(codes.iter().chain(grids).all(|&word| word == u32::MAX), "{what}: row {i} of {b}");
                assert!(row.iter().all(|value| value.bits() == 0), "{what}: row {i} of {b}");
                continue;
            }
            let index = index(b, i);
            let x: Vec<f32> = items[b].row(index).iter().map(|value| value.widen()).collect();
            let (mut words, mut lines) = (vec![0; groups.words(bits)], vec![0; groups.count()]);
            let random = random(b);
            packing::pack_row(&x, bits, &random, index as u64, &mut words, &mut lines).expect("finite");
            assert_eq!(grids, lines, "{what}: row {i} of {b}");
            assert_eq!(&codes[..words.len()], words, "{what}: row {i} of {b}");
            assert!(codes[words.len()..].iter().all(|&word| word == 0), "{what}: row {i} of {b}");
            let mut y = vec![0.0; groups.padded()];
            packing::unpack_row(columns, bits, &random, index as u64, &words, &lines, &mut y);
            let scale = kept.scales.as_ref().map_or(1.0, |scales| scales[at] as f32);
            for (found, y) in row.iter().zip(y) {
                assert_eq!(found.bits(), T::from_f32(y * scale).bits(), "{what}: row {i} of {b}");
            }
        }
    }
}

const COLUMNS: [usize; 14] = [1, 15, 16, 17, 40, 64, 65, 127, 128, 129, 200, 300, 384, 1536];
const PLACES: [Place; 3] = [Place::TIGHT, Place::ODD, Place::HEADS];

#[test]
fn shapes_of_every_kind() {
    for_each_machine(|machine| {
        for (i, columns) in COLUMNS.into_iter().enumerate() {
            for (k, bits) in ALL_BITS.into_iter().enumerate() {
                let place = PLACES[(i + k) % 3];
                let (dim, kept) = match i % 3 {
                    0 => ([1, 3, columns], 3),
                    1 => ([2, 5, columns], 3),
                    _ => ([1, 1, columns], 1),
                };
                match (i + 2 * k) % 3 {
                    0 => check::<f32>(machine, dim, kept, bits, place, 1),
                    1 => check::<f16>(machine, dim, kept, bits, place, 2),
                    _ => check::<bf16>(machine, dim, kept, bits, place, 3),
                }
            }
        }
        // More rows than a block has groups at a time.
        check::<bf16>(machine, [1, 70, 16], 33, Bits::Bits2, Place::TIGHT, 4);
        check::<f32>(machine, [2, 90, 40], 90, Bits::Bits4, Place::ODD, 5);
        check::<f16>(machine, [1, 33, 384], 33, Bits::Bits8, Place::TIGHT, 6);
    });
}

/// A block with more groups than its warps take at a time, and several blocks.
#[test]
fn every_share_of_a_block_has_the_same_bits() {
    let items = [rows_of::<f32>(40, 300, 9)];
    let kept = Kept { rows: 40, indices: None, scales: None, count: None };
    let words = |machine: &Machine, packed: &Packed| (machine.download(&packed.codes), machine.download(&packed.grids));
    let machine = &mut Machine::emulator(0);
    let packed = pack(machine, &items, &kept, Bits::Bits4, Place::TIGHT);
    let expected = words(machine, &packed);
    let unpacked = unpack::<f32>(machine, &packed, None);
    for groups_of_block in [32, 64, 128, 256, 512] {
        let machine = &mut Machine::drawn(u64::from(groups_of_block));
        let mut packed = pack(machine, &items, &kept, Bits::Bits4, Place::TIGHT);
        assert!(words(machine, &packed) == expected);
        let x = Uploaded::new(machine, &items, Place::ODD, 0.0);
        packed.rows.shares.groups_of_block = groups_of_block;
        packed.faults = machine.unwritten(packed.rows.shares.blocks() as usize);
        machine.write(&packed.codes, &vec![0; packed.codes.len()]);
        let args = gather_pack::Args {
            x: x.pointer(),
            leading: x.leading(),
            spacing: x.spacing(),
            indices: ptr::null(),
            count: ptr::null(),
            packed: packed.rows,
            seed: RANDOMNESS.seed,
            offset: RANDOMNESS.offset.wrapping_add(FURTHER),
            further_offset: ptr::null(),
            faults: packed.faults.pointer(),
        };
        // SAFETY: as in `pack`.
        unsafe { machine.run(&f32::PACK, gather_pack::shape(&packed.rows, 1), &args) };
        assert!(words(machine, &packed) == expected, "{groups_of_block}");
        assert!(unpack::<f32>(machine, &packed, None) == unpacked, "{groups_of_block}");
    }
}

/// The least row with an element that is not finite is reported; then no row counts.
#[test]
fn faults_are_reported() {
    for_each_machine(|machine| {
        let mut items = [0, 1, 2].map(|seed| rows_of::<bf16>(200, 129, seed));
        items[0][[150, 128]] = bf16::NAN;
        items[0][[151, 0]] = bf16::INFINITY;
        items[2][[7, 3]] = bf16::NEG_INFINITY;
        items[2][[199, 3]] = bf16::NAN;
        let kept = Kept { rows: 200, indices: None, scales: None, count: None };
        let packed = pack(machine, &items, &kept, Bits::Bits2, Place::TIGHT);
        let blocks = packed.faults.len() / 3;
        assert!(blocks > 8);
        let first = |faults: &[u32]| faults.iter().copied().find(|&fault| fault != 0).unwrap_or(0);
        let faults = machine.download(&packed.faults);
        assert_eq!(faults.chunks(blocks).map(first).collect::<Vec<_>>(), [151, 0, 8]);
        let (unpacked, counted) = unpack::<bf16>(machine, &packed, None);
        assert_eq!(counted, [0, 200, 0]);
        let is_zero = |item: &Array2<bf16>| item.iter().all(|value| value.to_bits() == 0);
        assert_eq!(unpacked.iter().map(is_zero).collect::<Vec<_>>(), [true, false, true]);
        let faults = machine.download(&packed.faults);
        assert_eq!([0, 1, 2].map(|b| faults[b * blocks]), [151, 0, 8]);
    });
}

#[test]
fn no_order_of_threads_changes_a_bit() {
    for seed in 1..6 {
        check::<f16>(&mut Machine::drawn(seed), [1, 9, 333], 4, Bits::Bits4, Place::ODD, 1);
    }
}

/// No operation of these kernels on floats may be fused: the codes would differ from the CPU's.
#[test]
fn nothing_is_fused() {
    let text = include_str!("../ptx/wtacrs_sm80.ptx");
    let mut seen = 0;
    for entry in text.split(".entry ").skip(1) {
        let name = entry.split('(').next().expect("a name");
        if ["gather_pack_", "unpack_rows_", "turn_back_"].iter().any(|begin| name.starts_with(begin)) {
            assert!(!entry.contains("fma."), "{name}");
            seen += 1;
        }
    }
    assert_eq!(seen, 8);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn any_shape(batch in 1..3_usize, rows in 1..12_usize, columns in 1..300_usize, share in 0.0..1.0_f64, seed: u64, kind in 0..3, bits in 0..3_usize) {
        let machine = &mut Machine::drawn(seed);
        let kept = ((rows as f64 * share).ceil() as usize).clamp(1, rows);
        let (bits, place, dim) = (ALL_BITS[bits], PLACES[seed as usize % 3], [batch, rows, columns]);
        match kind {
            0 => check::<f32>(machine, dim, kept, bits, place, seed >> 2),
            1 => check::<f16>(machine, dim, kept, bits, place, seed >> 2),
            _ => check::<bf16>(machine, dim, kept, bits, place, seed >> 2),
        }
    }
}
