//! Packed rows are read back without bias, whatever a row holds, and what is biased is rejected.

mod support;

use ndarray::Array2;
use proptest::prelude::*;
use wtacrs_core::layers::Linear;
use wtacrs_core::product::{Packing, Rows, Saved, Update, row_norms};
use wtacrs_core::sampling::{BuiltIn, Design, Keep, Randomness, Weights};
use wtacrs_core::theory::{packing_noise, packing_variance, poisson_variance};
use wtacrs_core::verify::{DitherMoments, UnbiasednessTest};
use wtacrs_exact::packing::{Bits, GROUP, Grid, Groups, PackingBits, code, dither, value};

const ALL: [Bits; 3] = [Bits::Bits8, Bits::Bits4, Bits::Bits2];

fn random(trial: u64) -> PackingBits {
    PackingBits::new(Randomness::new(11, 64 * trial), 0)
}

/// What a row is read back as.
fn read_back(row: &[f32], bits: Bits, random: PackingBits) -> Vec<f32> {
    let matrix = Array2::from_shape_vec((1, row.len()), row.to_vec()).expect("one row");
    let saved = Saved::pack(matrix.view(), None, bits, random).expect("finite");
    saved.rows().packed().expect("packed").unpack_row(0)
}

/// Rows where a rounding could go wrong.
fn hard_rows() -> Vec<(&'static str, Vec<f32>)> {
    let plain = |j: usize| ((j * 37) % 101) as f32 / 50.0 - 1.0;
    let row = |columns: usize, element: &dyn Fn(usize) -> f32| (0..columns).map(element).collect::<Vec<_>>();
    vec![
        ("plain", row(300, &plain)),
        ("outliers", row(384, &|j| if j % 61 == 7 { 40.0 * plain(j) } else { plain(j) })),
        ("constant", row(200, &|_| 0.3)),
        ("one giant", row(256, &|j| if j == 100 { 3e20 } else { plain(j) })),
        ("zeros", row(130, &|_| 0.0)),
        ("negative zeros", row(130, &|j| if j % 2 == 0 { -0.0 } else { 0.0 })),
        ("mostly zero", row(150, &|j| if j % 29 == 0 { plain(j) } else { 0.0 })),
        ("subnormal", row(140, &|j| plain(j) * 1e-40)),
        ("the largest", row(128, &|j| if j % 3 == 0 { f32::MAX } else { f32::MIN })),
        ("one element", vec![-2.5]),
        ("narrow", row(19, &plain)),
    ]
}

#[test]
fn rows_are_read_back_without_bias() {
    for (name, row) in hard_rows() {
        let truth: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
        for bits in ALL {
            let test = UnbiasednessTest { trials: 600, ..Default::default() };
            let verdict = test.run_numbers(&truth, |trial, estimate| {
                let found = read_back(&row, bits, random(trial));
                estimate.iter_mut().zip(found).for_each(|(to, from)| *to = from.into());
            });
            if name == "zeros" || name == "negative zeros" {
                assert_eq!(verdict.statistic, 0.0, "exact");
            }
            // Far below what matters to f32, subnormal rows lose bits.
            assert!(name == "subnormal" || !verdict.rejects(), "{name} {bits:?}: {verdict:?}");
            let error =
                read_back(&row, bits, random(1)).iter().zip(&row).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(name != "subnormal" || error < 1e-28, "{error}");
        }
    }
}

/// How one element is rounded: `(y, grid, bits, dither)` to what is read back.
type Rounding = fn(f32, Grid, Bits, u32) -> f32;

fn dithered(y: f32, grid: Grid, _: Bits, dither: u32) -> f32 {
    value(code(y, grid.lo, grid.density(), dither), dither, grid.lo, grid.fine())
}

fn to_nearest(y: f32, grid: Grid, _: Bits, _: u32) -> f32 {
    grid.lo + ((y - grid.lo) / grid.step).round() * grid.step
}

/// The dither is added, but not subtracted.
fn not_subtracted(y: f32, grid: Grid, _: Bits, dither: u32) -> f32 {
    grid.lo + (code(y, grid.lo, grid.density(), dither) as f32 + 0.5) * grid.step
}

/// Another element's dither is subtracted.
fn of_a_neighbour(y: f32, grid: Grid, _: Bits, of_y: u32) -> f32 {
    let other = dither(of_y << 17, 1);
    value(code(y, grid.lo, grid.density(), of_y), other, grid.lo, grid.fine())
}

/// A quarter of the range is cut off, as scales that leave outliers outside do.
fn clipped(y: f32, grid: Grid, bits: Bits, dither: u32) -> f32 {
    let tight = Grid { lo: grid.lo + grid.step * bits.steps() as f32 / 4.0, step: grid.step };
    dithered(y.max(tight.lo), tight, bits, dither)
}

#[test]
fn the_exact_law_is_as_proven_and_that_of_other_roundings_is_not() {
    let rejected = |rounding: Rounding, bits| {
        let ys = [-0.73, -0.4, -0.11, 0.0, 0.25, 0.501, 0.98, 1.31];
        let grid = Grid::new(ys[0], ys[7], bits);
        let is_wrong = |&y: &f32| !DitherMoments::of(|dither| rounding(y, grid, bits, dither)).fits(y, grid);
        ys.iter().filter(|y| is_wrong(y)).count()
    };
    for bits in ALL {
        assert_eq!(rejected(dithered, bits), 0);
        assert!(rejected(to_nearest, bits) >= 6);
        // The means of these two are right, but their noise is that of stochastic rounding, or more.
        assert!(rejected(not_subtracted, bits) >= 6);
        assert!(rejected(of_a_neighbour, bits) >= 6);
        assert!(rejected(clipped, bits) >= 1);
    }
}

#[test]
fn biased_roundings_are_rejected_by_monte_carlo() {
    let y: Vec<f32> = (0..GROUP).map(|j| ((j * 37) % 101) as f32 / 50.0 - 1.0).collect();
    let truth: Vec<f64> = y.iter().map(|&v| f64::from(v)).collect();
    let run = |rounding: Rounding, bits| {
        let grid = Grid::new(-1.0, 1.0, bits);
        UnbiasednessTest { trials: 400, ..Default::default() }.run_numbers(&truth, |trial, estimate| {
            let word = random(trial).words(0, 0)[0];
            for (j, (to, &y)) in estimate.iter_mut().zip(&y).enumerate() {
                *to = rounding(y, grid, bits, dither(word, j as u32)).into();
            }
        })
    };
    for bits in ALL {
        assert!(!run(dithered, bits).rejects());
        assert!(run(to_nearest, bits).rejects());
        assert!(run(clipped, bits).rejects());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Every element is read back within half a step, in rotated space, and the row's variance says how far that is.
    #[test]
    fn any_row_is_read_back_within_its_steps(
        row in prop::collection::vec(prop_oneof![4 => -1.0..1.0_f32, 1 => -1e3..1e3_f32, 1 => Just(0.0_f32)], 1..300),
        exponent in -60..60_i32,
        bits in prop_oneof![Just(Bits::Bits8), Just(Bits::Bits4), Just(Bits::Bits2)],
        seed: u64,
    ) {
        let row: Vec<f32> = row.iter().map(|v| v * 2_f32.powi(exponent)).collect();
        let matrix = Array2::from_shape_vec((1, row.len()), row.clone()).expect("one row");
        let random = PackingBits::new(Randomness::new(seed, 5), 1);
        let saved = Saved::pack(matrix.view(), None, bits, random).expect("finite");
        let Rows::Packed(packed) = saved.rows() else { panic!("packed") };
        let found = packed.unpack_row(0);
        let error = found.iter().zip(&row).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        let largest: f64 = row.iter().map(|v| f64::from(v.abs())).fold(0.0, f64::max);
        let groups = Groups::new(row.len());
        let most: f64 = (0..groups.count())
            .map(|group| {
                let step = f64::from(Grid::from_word(packed.grids()[group]).step);
                (groups.size(group) as f64 * step).powi(2)
            })
            .sum();
        // ‖x̂ − x‖² of a group is at most 4P · P (step/2)².
        prop_assert!(error <= most * 1.001 + (largest * 1e-5).powi(2) + 1e-50, "{} {}", error, most);
    }
}

/// The error of dW is the sampling's and the packing's: Σ (1/π − 1)‖h‖²‖dz‖² + Σ v‖dz‖²/π, where the first is a bound.
#[test]
fn theory_foresees_the_error_on_a_real_layer() {
    let layer = support::layer("minilm_l3_value_imdb_1024");
    let (h, dz) = (layer.h.view(), layer.dz.view());
    let (h_norms, dz_norms) = (row_norms(h), row_norms(dz));
    let weights = Weights::from_norms(&h_norms, &dz_norms).expect("valid");
    let exact = layer.h.mapv(f64::from).t().dot(&layer.dz.mapv(f64::from));
    for (bits, fraction) in [(Packing::Bits2, 0.3), (Packing::Bits4, 1.0), (Packing::Bits8, 1.0), (Packing::Bits2, 1.0)]
    {
        let linear = Linear::new(Keep::Fraction(fraction)).with_packing(bits);
        let budget = weights.budget(linear.keep).expect("fits");
        let noise = packing_noise(h, bits.bits().expect("packed"), random(0)).expect("finite");
        let noise_of = |i: usize| noise[i] * f64::from(dz_norms[i]).powi(2);
        let added = packing_variance(&weights, budget, noise_of);
        let tail = poisson_variance(&weights, budget, |i| weights.value(i).powi(2));
        let draws = 40;
        let (mut found, mut sampling) = (0.0, 0.0);
        for draw in 0..draws {
            let randomness = Randomness::new(5, draw * linear.draws(h.nrows()).expect("fits"));
            let error = |saved: &Saved<f32>| {
                let mut dw = Array2::zeros(exact.dim());
                saved.backward(dz, dw.view_mut(), Update::Overwrite).expect("fits");
                (&dw.mapv(f64::from) - &exact).mapv(|v| v * v).sum() / draws as f64
            };
            let guess = wtacrs_core::guesses::NormGuess::Norms(&dz_norms);
            found += error(&linear.forward(h, guess, randomness).expect("fits"));
            if fraction < 1.0 {
                let selection = BuiltIn::WtaPivotal.select_seeded(&weights, budget, randomness);
                sampling += error(&Saved::gather(h, selection).expect("fits"));
            }
        }
        assert!(sampling <= 1.1 * tail, "{sampling} {tail}");
        let ratio = (found - sampling) / added;
        assert!((0.9..1.1).contains(&ratio), "{bits} bits, {fraction}: {ratio}");
    }
}
