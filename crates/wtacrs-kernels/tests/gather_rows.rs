//! Gathered rows against the CPU's, to the bit.

use crate::common::{Machine, for_each_machine};
use crate::matrices::{Place, Tested, Uploaded, noise};
use half::{bf16, f16};
use ndarray::{Array2, array};
use proptest::prelude::*;
use wtacrs_core::product;
use wtacrs_core::sampling::Selection;
use wtacrs_kernels::kernel::gather_rows::{Args, shape};
use wtacrs_kernels::kernel::matrix::Spacing;

/// The kept rows of each matrix: indices, scales, and how many of both are used.
struct Kept {
    indices: Vec<u32>,
    scales: Option<Vec<f64>>,
    count: Option<Vec<u32>>,
}

fn run<T: Tested>(machine: &mut Machine, items: &[Array2<T>], kept: &Kept, places: [Place; 2]) -> Vec<Array2<T>> {
    let (columns, rows) = (items[0].ncols(), kept.indices.len() / items.len());
    let filler = T::from_f32(-7.0);
    let x = Uploaded::new(machine, items, places[0], filler);
    let out = Uploaded::new(machine, &vec![Array2::from_elem((rows, columns), filler); items.len()], places[1], filler);
    let indices = machine.upload(&kept.indices);
    let scales = kept.scales.as_ref().map(|scales| machine.upload(scales));
    let count = kept.count.as_ref().map(|count| machine.upload(count));
    let args = Args {
        x: x.pointer(),
        leading: x.leading(),
        spacing: x.spacing(),
        columns: columns as u32,
        rows: rows as u32,
        indices: indices.pointer(),
        scales: scales.as_ref().map_or(std::ptr::null(), |scales| scales.pointer()),
        count: count.as_ref().map_or(std::ptr::null(), |count| count.pointer()),
        out: out.pointer(),
        out_leading: out.leading(),
        out_spacing: out.spacing(),
    };
    // SAFETY: the buffers have the sizes that the arguments say, and indices are of rows.
    unsafe { machine.run(&T::gather(&args), shape(rows as u32, columns as u32, items.len() as u32, T::BYTES), &args) };
    out.download(machine, filler)
}

fn bits<T: Tested>(items: &[Array2<T>]) -> Vec<Vec<u32>> {
    items.iter().map(|item| item.iter().map(|value| value.bits()).collect()).collect()
}

const PLACES: [[Place; 2]; 5] =
    [[Place::TIGHT; 2], [Place::ODD; 2], [Place::TIGHT, Place::ODD], [Place::ODD, Place::TIGHT], [Place::HEADS; 2]];

/// By the CPU's gather, or by its scaled one rounded to the type.
fn check<T: Tested>(machine: &mut Machine, dim: (usize, usize, usize), kept_rows: usize, seed: u64) {
    let (batch, rows, columns) = dim;
    let items: Vec<_> = (0..batch as u64).map(|b| noise::<T>(rows, columns, seed + b)).collect();
    let random = |i: usize| wtacrs_exact::philox::bits(i as u128, seed) as u64;
    let counts: Vec<u32> = (0..batch).map(|b| (random(b) % (kept_rows as u64 + 1)) as u32).collect();
    let indices: Vec<u32> = (0..batch * kept_rows)
        .map(|i| {
            let (b, at) = (i / kept_rows, i % kept_rows);
            // Ascending, as a selection's are; those beyond the count must not be looked at.
            if at < counts[b] as usize { (at * rows / kept_rows) as u32 } else { u32::MAX }
        })
        .collect();
    let scales: Vec<f64> = (0..indices.len()).map(|i| 1.0 + (random(i) >> 40) as f64 / 3e5).collect();
    for is_scaled in [false, true] {
        let expected: Vec<Array2<T>> = (0..batch)
            .map(|b| {
                let (first, count) = (b * kept_rows, counts[b] as usize);
                let mut out = Array2::from_elem((kept_rows, columns), T::from_f32(0.0));
                let some = first..first + count;
                let selection =
                    Selection::new(rows, 0, indices[some.clone()].to_vec(), scales[some].to_vec()).expect("valid");
                let mut head = out.slice_mut(ndarray::s![..count, ..]);
                if is_scaled {
                    head.assign(
                        &product::gather_scaled(items[b].view(), &selection).expect("shapes fit").mapv(T::from_f32),
                    );
                } else {
                    head.assign(&product::gather(items[b].view(), &selection).expect("shapes fit"));
                }
                out
            })
            .collect();
        let scales = is_scaled.then(|| scales.clone());
        let kept = Kept { indices: indices.clone(), scales, count: Some(counts.clone()) };
        for places in PLACES {
            assert_eq!(bits(&run(machine, &items, &kept, places)), bits(&expected), "{dim:?} {kept_rows} {places:?}");
        }
    }
}

#[test]
fn shapes_of_every_kind() {
    let shapes = [(1, 1_usize, 1), (1, 5, 1), (2, 3, 7), (1, 9, 64), (3, 20, 65), (1, 7, 1023), (1, 4, 5000)];
    for_each_machine(|machine| {
        for dim in shapes {
            for kept_rows in [1, dim.1.div_ceil(2), dim.1] {
                check::<f32>(machine, dim, kept_rows, 1);
                check::<f16>(machine, dim, kept_rows, 2);
                check::<bf16>(machine, dim, kept_rows, 3);
            }
        }
    });
}

#[test]
fn all_rows_without_a_count_and_no_columns() {
    for_each_machine(|machine| {
        let x = array![[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
        let kept = |scales| Kept { indices: vec![1, 0, 1], scales, count: None };
        let found = run(machine, std::slice::from_ref(&x), &kept(Some(vec![1.0, 0.5, 3.0])), [Place::TIGHT; 2]);
        assert_eq!(found, [array![[4.0, 5.0, 6.0], [0.5, 1.0, 1.5], [12.0, 15.0, 18.0]]]);
        let none = Array2::<bf16>::from_elem((2, 0), bf16::ONE);
        assert_eq!(run(machine, &[none], &kept(None), [Place::TIGHT; 2])[0].dim(), (3, 0));
    });
}

#[test]
fn extremes_round_once_and_overflow_as_on_the_cpu() {
    for_each_machine(|machine| {
        let values = [0.0, -0.0, 1e-7, 6e-8, 65504.0, -65504.0, 1000.0, 0.1, f32::INFINITY, 3e-5];
        let scales = vec![1.0, 3.0, 65.6, 1e9, 1.0 / 3.0 + 1.0];
        let indices = vec![0; 5];
        let kept = Kept { indices: indices.clone(), scales: Some(scales.clone()), count: None };
        fn expected<T: Tested>(values: &[f32], scales: &[f64]) -> Array2<T> {
            Array2::from_shape_fn((scales.len(), values.len()), |(i, j)| {
                T::from_f32(T::from_f32(values[j]).widen() * scales[i] as f32)
            })
        }
        fn item<T: Tested>(values: &[f32]) -> [Array2<T>; 1] {
            [Array2::from_shape_fn((1, values.len()), |(_, j)| T::from_f32(values[j]))]
        }
        let found = run(machine, &item::<f16>(&values), &kept, [Place::TIGHT; 2]);
        assert_eq!(bits(&found), bits(&[expected::<f16>(&values, &scales)]));
        let found = run(machine, &item::<bf16>(&values), &kept, [Place::TIGHT; 2]);
        assert_eq!(bits(&found), bits(&[expected::<bf16>(&values, &scales)]));
        let found = run(machine, &item::<f32>(&values), &kept, [Place::ODD; 2]);
        assert_eq!(bits(&found), bits(&[expected::<f32>(&values, &scales)]));
    });
}

/// Rows beyond 2³² elements, in memory that is reserved but nowhere there until it is touched.
#[test]
#[cfg(target_os = "linux")]
fn offsets_beyond_32_bits() {
    use crate::sparse::Sparse;
    let leading = (1_usize << 32) + 24;
    let memory = Sparse::new(3 * 2 * leading + 4096);
    let row: Vec<u16> = (0..40).map(|j| bf16::from_f32(j as f32 / 8.0).to_bits()).collect();
    for i in 1..3 {
        // SAFETY: within the reserved memory.
        unsafe { memory.place::<u16>(i * leading).copy_from_nonoverlapping(row.as_ptr(), row.len()) };
    }
    for machine in &mut Machine::both(0) {
        far_rows(machine, memory.place(0), leading, &row);
    }
}

/// The second and third of three rows hold `row`, the first zeros.
fn far_rows(machine: &mut Machine, x: *const u8, leading: usize, row: &[u16]) {
    let (indices, out) = (machine.upload(&[2_u32, 1]), machine.unwritten::<u16>(80));
    let args = Args {
        x,
        leading: leading as u64,
        spacing: Spacing::even(0),
        columns: 40,
        rows: 2,
        indices: indices.pointer(),
        scales: std::ptr::null(),
        count: std::ptr::null(),
        out: out.bytes(),
        out_leading: 40,
        out_spacing: Spacing::even(0),
    };
    // SAFETY: both rows lie in the reserved memory.
    unsafe { machine.run(&bf16::gather(&args), shape(2, 40, 1, 2), &args) };
    assert_eq!(machine.download(&out), [row, row].concat());

    // The norms of the same rows, found by the same offsets.
    let norms = machine.unwritten::<f32>(3);
    let args = wtacrs_kernels::kernel::row_norms::Args {
        x,
        leading: leading as u64,
        spacing: Spacing::even(0),
        rows: 3,
        columns: 40,
        theta: std::ptr::null(),
        norms: norms.pointer(),
        directions: std::ptr::null_mut(),
        cached: std::ptr::null(),
        placement: std::ptr::null(),
        clamp: 0.0,
        exchange: std::ptr::null_mut(),
        exchange_words: 0,
    };
    // SAFETY: as above; row 0 is zeros.
    unsafe { machine.run(&bf16::norms(&args), wtacrs_kernels::kernel::row_norms::shape(3, 40, 1, 2), &args) };
    let expected = (0..40).map(|j| f64::from(j * j) / 64.0).sum::<f64>().sqrt() as f32;
    assert_eq!(machine.download(&norms), [0.0, expected, expected]);
}

#[test]
fn no_order_of_threads_changes_a_bit() {
    let items = [noise::<f16>(9, 333, 1)];
    let kept = Kept { indices: vec![0, 3, 8], scales: Some(vec![1.0, 2.5, 7.125]), count: Some(vec![2]) };
    let expected = bits(&run(&mut Machine::emulator(0), &items, &kept, [Place::TIGHT; 2]));
    for seed in 1..8 {
        assert_eq!(bits(&run(&mut Machine::drawn(seed), &items, &kept, [Place::ODD; 2])), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_shape(batch in 1..4_usize, rows in 1..30_usize, columns in 1..700_usize, share in 0.0..1.0_f64, seed: u64, kind in 0..3) {
        let machine = &mut Machine::drawn(seed);
        let kept_rows = ((rows as f64 * share).ceil() as usize).clamp(1, rows);
        let dim = (batch, rows, columns);
        match kind {
            0 => check::<f32>(machine, dim, kept_rows, seed),
            1 => check::<f16>(machine, dim, kept_rows, seed),
            _ => check::<bf16>(machine, dim, kept_rows, seed),
        }
    }
}
