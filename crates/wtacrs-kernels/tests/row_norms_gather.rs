//! Norms, column sums and copies of some rows from one read: the norms and sums of the kernel without copies, and the rows
//! themselves, to the bit.

use crate::common::{Machine, for_each_machine};
use crate::matrices::{Place, Tested, Uploaded, noise};
use half::{bf16, f16};
use ndarray::Array2;
use std::ptr;
use wtacrs_kernels::kernel::column_sums::{Args, GatherArgs, gather_shape, partial_leading, ranges, shape};

/// For each matrix, which rows are kept.
struct Kept {
    rows: Vec<Vec<u32>>,
    /// Rows of `out` of each matrix.
    room: usize,
    /// Whether the counts are passed: otherwise all of the room is used.
    counted: bool,
}

fn bits<T: Copy>(values: &[T], bits: fn(T) -> u32) -> Vec<u32> {
    values.iter().map(|&value| bits(value)).collect()
}

fn check<T: Tested>(machine: &mut Machine, items: &[Array2<T>], place: Place, kept: &Kept) {
    let (rows, columns) = items[0].dim();
    let x = Uploaded::new(machine, items, place, T::from_f32(f32::NAN));
    let room = kept.room;
    let padded = columns.next_multiple_of(16 / T::BYTES as usize);
    let indices: Vec<u32> =
        kept.rows.iter().flat_map(|rows| (0..room).map(|i| rows.get(i).copied().unwrap_or(u32::MAX))).collect();
    let counts: Vec<u32> = kept.rows.iter().map(|rows| rows.len() as u32).collect();
    let (indices, counts) = (machine.upload(&indices), machine.upload(&counts));
    let out = machine.unwritten::<T>(items.len() * room * padded);
    let [of_rows, of_columns, batch] = [rows, columns, items.len()].map(|size| size as u32);
    let sums = (batch * ranges(of_rows, of_columns, T::BYTES)) as usize * partial_leading(of_columns) as usize;
    // What the sums have beyond the columns differs or not.
    let [partials, expected_partials] = [(); 2].map(|()| machine.filled::<f32>(sums, 0));
    let [norms, expected_norms] = [(); 2].map(|()| machine.unwritten::<f32>(items.len() * rows));
    let of = |norms, partials| Args {
        x: x.pointer(),
        leading: x.leading(),
        spacing: x.spacing(),
        rows: of_rows,
        columns: of_columns,
        norms,
        partials,
    };
    let args = GatherArgs {
        of: of(norms.pointer(), partials.pointer()),
        indices: indices.pointer(),
        count: if kept.counted { counts.pointer() } else { ptr::null() },
        kept: room as u32,
        out: out.bytes(),
        out_leading: padded as u64,
    };
    let launch = gather_shape(of_rows, of_columns, batch, T::BYTES);
    // SAFETY: the buffers have the sizes that the arguments say.
    unsafe {
        machine.run(&T::NORMS_GATHER, launch, &args);
        let expected = of(expected_norms.pointer(), expected_partials.pointer());
        machine.run(&T::SUMS, shape(of_rows, of_columns, batch, T::BYTES), &expected);
    }
    let what = format!("{machine:?}, {rows} × {columns}, {place:?}");
    let of_f32 = |buffer| bits(&machine.download(buffer), f32::to_bits);
    assert_eq!(of_f32(&norms), of_f32(&expected_norms), "{what}");
    assert_eq!(of_f32(&partials), of_f32(&expected_partials), "{what}");
    let found = bits(&machine.download(&out), T::bits);
    let copied = |found: &[u32]| {
        for (b, item) in items.iter().enumerate() {
            for m in 0..room {
                let row = &found[(b * room + m) * padded..][..columns];
                let expected = match kept.rows[b].get(m) {
                    Some(&index) => bits(&item.row(index as usize).to_vec(), T::bits),
                    None => vec![0; columns],
                };
                assert_eq!(row, expected, "{what}: row {m} of matrix {b}");
            }
        }
    };
    copied(&found);
    // The rows alone.
    let again = machine.unwritten::<T>(items.len() * room * padded);
    let alone = GatherArgs { of: of(ptr::null_mut(), ptr::null_mut()), out: again.bytes(), ..args };
    // SAFETY: as above.
    unsafe { machine.run(&T::NORMS_GATHER, launch, &alone) };
    copied(&bits(&machine.download(&again), T::bits));
}

/// Every third row, a run of rows, the last one; for each matrix others.
fn some(rows: usize, batch: usize) -> Kept {
    let of = |b: usize| {
        let is_kept = |i: usize| (i + b).is_multiple_of(3) || (rows / 2..rows / 2 + 5).contains(&i) || i + 1 == rows;
        (0..rows).filter(|&i| is_kept(i)).map(|i| i as u32).collect::<Vec<_>>()
    };
    let rows: Vec<_> = (0..batch).map(of).collect();
    let room = rows.iter().map(Vec::len).max().unwrap_or(0) + 3;
    Kept { rows, room, counted: true }
}

fn check_all<T: Tested>(machine: &mut Machine, rows: usize, columns: usize, batch: usize) {
    let items: Vec<_> = (0..batch as u64).map(|b| noise::<T>(rows, columns, b)).collect();
    let place = if columns.is_multiple_of(2) { Place::TIGHT } else { Place::ODD };
    check(machine, &items, place, &some(rows, batch));
    let none = Kept { rows: vec![vec![]; batch], room: 2, counted: true };
    check(machine, &items, place, &none);
    let all = Kept { rows: vec![(0..rows as u32).collect(); batch], room: rows, counted: false };
    check(machine, &items, place, &all);
}

#[test]
fn shapes_of_every_kind() {
    // Rows that lanes, warps and a block share, with one strip or two; more ranges than one.
    for_each_machine(|machine| {
        for (rows, columns, batch) in [(1, 1, 1), (300, 3, 2), (67, 65, 1), (33, 300, 3), (20, 1030, 1), (9, 2100, 2)] {
            check_all::<f32>(machine, rows, columns, batch);
            check_all::<bf16>(machine, rows, columns, batch);
        }
        check_all::<f16>(machine, 40, 520, 2);
        check_all::<bf16>(machine, 5000, 16, 1);
    });
}
