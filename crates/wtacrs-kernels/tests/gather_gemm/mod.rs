//! The product of saved rows with gathered dZ, against its definition in f64 and against wtacrs-core.
//!
//! Everything that the kernel has no business to read is NaN here: rows that are not selected, rows beyond the count,
//! columns beyond a row's end. Everything that it has no business to write is checked to be as it was.

mod case;
#[cfg(target_os = "linux")]
mod far;
mod real_layer;

use crate::common::{Machine, for_each_machine};
use case::{Case, MULTIPLIERS, check};
use proptest::prelude::*;
use wtacrs_kernels::kernel::matrix::DataType;
use wtacrs_kernels::kernel::matrix::RowLayout;
use wtacrs_kernels::plan::tiling::{Multiplier, Tile};

#[test]
fn whole_tiles_and_a_little_more() {
    for_each_machine(|machine| {
        for multiplier in MULTIPLIERS {
            for tile in Tile::ALL {
                if tile != Tile::Square && matches!(multiplier, Multiplier::F32 | Multiplier::Tf32) {
                    continue;
                }
                check(machine, &Case { tile, ..Case::new(multiplier, 136, 264, 70) });
            }
        }
    });
}

#[test]
fn one_of_everything() {
    for_each_machine(|machine| {
        for multiplier in MULTIPLIERS {
            for (in_features, out_features, rows) in [(1, 1, 1), (1, 9, 2), (9, 1, 33), (8, 8, 1), (130, 3, 5)] {
                check(machine, &Case::new(multiplier, in_features, out_features, rows));
            }
        }
    });
}

#[test]
fn no_rows_give_zeros_or_what_was_there() {
    for_each_machine(|machine| {
        for multiplier in MULTIPLIERS {
            for accumulate in [false, true] {
                check(machine, &Case { accumulate, ..Case::new(multiplier, 5, 16, 0) });
                check(machine, &Case { accumulate, count: Some(vec![0]), ..Case::new(multiplier, 8, 16, 7) });
            }
        }
    });
}

#[test]
fn rows_beyond_the_count_are_not_touched() {
    for_each_machine(|machine| {
        for multiplier in MULTIPLIERS {
            for (count, tile) in [1, 31, 32, 33, 64].into_iter().zip(Tile::ALL.into_iter().cycle()) {
                let case = Case::new(multiplier, 16, 24, 65);
                check(machine, &Case { count: Some(vec![count]), tile, ..case });
            }
        }
    });
}

#[test]
fn batches_have_counts_and_indices_of_their_own() {
    for_each_machine(|machine| {
        for multiplier in MULTIPLIERS {
            for splits in [1, 2] {
                let case = Case { batch: 3, splits, accumulate: true, ..Case::new(multiplier, 24, 40, 40) };
                check(machine, &Case { count: Some(vec![40, 3, 17]), ..case.clone() });
                check(machine, &Case { gathered: false, padding: [8, 16, 3], ..case.clone() });
                check(machine, &Case { heads: 2, padding: [0, 8, 4], ..case.clone() });
                check(machine, &Case { heads: 2, padding: [3, 1, 2], ..case });
            }
        }
    });
}

#[test]
fn any_alignment_gives_the_same() {
    for_each_machine(|machine| {
        for multiplier in MULTIPLIERS {
            let case = Case { accumulate: true, ..Case::new(multiplier, 24, 40, 37) };
            for (padding, shift) in
                [([1, 0, 0], [0; 3]), ([0, 3, 1], [0, 0, 1]), ([0; 3], [1, 3, 2]), ([8, 8, 4], [8, 8, 4])]
            {
                for output in [DataType::F32, DataType::F16, DataType::Bf16] {
                    check(machine, &Case { padding, shift, output, ..case.clone() });
                }
            }
        }
        // Sums over the same rows in the same order, however they are loaded.
        for multiplier in [Multiplier::F32, Multiplier::Tf32] {
            let case = Case::new(multiplier, 24, 40, 37);
            let shifted = Case { shift: [1, 1, 0], ..case.clone() };
            assert_eq!(check(machine, &case), check(machine, &shifted));
        }
    });
}

/// Rows aligned to 16 bytes that end within them. Behind the last row nothing lies.
#[test]
fn ragged_widths() {
    for_each_machine(|machine| {
        for multiplier in MULTIPLIERS {
            for (in_features, out_features) in [(20, 36), (137, 8), (8, 130), (3, 1)] {
                let padding = [in_features, out_features].map(|width: usize| width.next_multiple_of(8) - width);
                let case = Case { batch: 2, splits: 2, ..Case::new(multiplier, in_features, out_features, 37) };
                check(machine, &Case { padding: [padding[0], padding[1], 0], ..case });
            }
        }
    });
    let ragged = Case::new(Multiplier::Bf16, 20, 36, 37).tiling();
    assert_eq!(ragged.launch(RowLayout::Ragged).0.name(), "gather_gemm_bf16_ragged");
}

#[test]
fn splits_are_added_in_order() {
    for multiplier in MULTIPLIERS {
        for splits in 1..=4 {
            let case = Case { splits, accumulate: true, ..Case::new(multiplier, 16, 20, 75) };
            let first = check(&mut Machine::emulator(0), &case);
            for seed in 1..8 {
                assert_eq!(check(&mut Machine::drawn(seed), &case), first, "seed {seed} of {case:?}");
            }
            if let Some(mut gpu) = Machine::gpu() {
                let once = check(&mut gpu, &case);
                assert_eq!(check(&mut gpu, &case), once);
            }
        }
    }
}

#[test]
fn more_splits_than_rows() {
    for_each_machine(|machine| {
        for multiplier in MULTIPLIERS {
            check(machine, &Case { splits: 4, output: DataType::Bf16, ..Case::new(multiplier, 16, 24, 3) });
        }
    });
}

fn cases() -> impl Strategy<Value = Case> {
    let features = || prop_oneof![Just(1), Just(8), Just(64), 1_usize..40, 120_usize..137, Just(256), Just(264)];
    let sizes = (features(), features(), prop_oneof![0_usize..5, 28_usize..70], 1_usize..3);
    let kind = (
        prop::sample::select(MULTIPLIERS.to_vec()),
        prop::sample::select(vec![DataType::F32, DataType::F16, DataType::Bf16]),
        any::<[bool; 2]>(),
        prop::sample::select(Tile::ALL.to_vec()),
        1_u32..4,
        any::<u8>(),
    );
    let place = (
        prop::array::uniform3(prop_oneof![Just(0_usize), Just(8), 0_usize..5]),
        prop::array::uniform3(prop_oneof![Just(0_usize), Just(8), 0_usize..5]),
        prop::option::of(prop::array::uniform3(0.0..=1.0_f64)),
    );
    (sizes, kind, place).prop_map(|(sizes, kind, (padding, shift, kept))| {
        let (in_features, out_features, rows, batch) = sizes;
        let (multiplier, output, [gathered, accumulate], tile, splits, seed) = kind;
        let count =
            kept.map(|kept| kept[..batch].iter().map(|fraction| (fraction * rows as f64) as usize).collect::<Vec<_>>());
        let seed = u64::from(seed);
        let case = Case::new(multiplier, in_features, out_features, rows);
        Case { output, batch, count, gathered, accumulate, padding, shift, tile, splits, seed, ..case }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_definition(case in cases(), seed in 0_u64..1000) {
        check(&mut Machine::drawn(seed), &case);
        if let Some(mut gpu) = Machine::gpu() {
            check(&mut gpu, &case);
        }
    }
}
