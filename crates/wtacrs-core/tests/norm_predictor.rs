//! The norm predictor on synthetic layers with a planted law of log‖dZ‖, and on everything that could break it.

use half::{bf16, f16};
use ndarray::{Array2, ArrayView2, Axis, s};
use rand::distr::Distribution;
use rand_distr::StandardNormal;
use wtacrs_core::Randomness;
use wtacrs_core::guesses::{NormPredictor, PredictorError, PredictorSettings};
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Keep, Selection, Weights};
use wtacrs_core::{product, theory};
use wtacrs_exact::philox::Philox4x32_10;

const IN_FEATURES: usize = 96;

/// A layer whose log‖dZ‖ is `spread` · (direction · h/‖h‖) + `level`.
struct Planted {
    direction: Vec<f64>,
    spread: f64,
    level: f64,
}

struct Batch {
    h: Array2<f32>,
    dz_norms: Vec<f32>,
}

impl Planted {
    fn new(seed: u64, spread: f64) -> Self {
        let mut rng = Philox4x32_10::new(seed, 1 << 40);
        let direction = (0..IN_FEATURES).map(|_| StandardNormal.sample(&mut rng)).collect();
        Self { direction, spread, level: -3.0 }
    }

    fn batch(&self, tokens: usize, step: u64) -> Batch {
        let mut rng = Philox4x32_10::new(7, step << 20);
        let h: Array2<f32> = Array2::from_shape_simple_fn((tokens, IN_FEATURES), || StandardNormal.sample(&mut rng));
        let dz_norms = h.rows().into_iter().map(|h| {
            let dot: f64 = h.iter().zip(&self.direction).map(|(&h, d)| f64::from(h) * d).sum();
            let norm = h.iter().map(|&h| f64::from(h).powi(2)).sum::<f64>().sqrt();
            (self.spread * dot / norm + self.level).exp() as f32
        });
        Batch { dz_norms: dz_norms.collect(), h }
    }
}

/// √Σ(1/π − 1)‖h‖²‖dz‖²: the tail error, up to ‖dW‖.
fn tail_error(batch: &Batch, weights: &Weights, keep: Keep) -> f64 {
    let norms = product::row_norms(batch.h.view());
    let squared = |i: usize| (f64::from(norms[i]) * f64::from(batch.dz_norms[i])).powi(2);
    theory::poisson_variance(weights, weights.budget(keep).expect("fits"), squared).sqrt()
}

fn guessed(predictor: &NormPredictor, batch: &Batch) -> Weights {
    let guess = predictor.guess(batch.h.view(), None).expect("fits");
    Weights::from_norms(&guess.input_norms, &guess.dz_norms).expect("a guess makes valid weights")
}

fn learn(predictor: &mut NormPredictor, batch: &Batch, selection: &Selection) {
    let kept = product::gather(batch.h.view(), selection).expect("fits");
    let norms: Vec<f32> = selection.indices().iter().map(|&i| batch.dz_norms[i as usize]).collect();
    predictor.update(kept.view(), &norms, selection.scales(), None).expect("valid");
}

fn train(predictor: &mut NormPredictor, layer: &Planted, steps: std::ops::Range<u64>) {
    for step in steps {
        let batch = layer.batch(256, step);
        let weights = guessed(predictor, &batch);
        let budget = weights.budget(Keep::Fraction(0.3)).expect("fits");
        learn(predictor, &batch, &BuiltIn::WtaPivotal.select_seeded(&weights, budget, Randomness::new(1, step << 16)));
    }
}

/// tail error over that of exact weights, on a batch never seen.
fn excess(predictor: &NormPredictor, layer: &Planted) -> f64 {
    let batch = layer.batch(2048, 1 << 30);
    let exact = Weights::from_norms(&product::row_norms(batch.h.view()), &batch.dz_norms).expect("valid");
    let keep = Keep::Fraction(0.3);
    tail_error(&batch, &guessed(predictor, &batch), keep) / tail_error(&batch, &exact, keep)
}

fn predictor() -> NormPredictor {
    NormPredictor::new(IN_FEATURES, PredictorSettings::default()).expect("valid")
}

/// Positive, finite, and no farther from one another than the clamp to either side allows.
fn assert_bounded(norms: &[f32], clamp: f64) {
    assert!(norms.iter().all(|&norm| norm > 0.0 && norm.is_finite()), "{norms:?}");
    let logs = || norms.iter().map(|&norm| f64::from(norm).ln());
    let (low, high) = (logs().fold(f64::INFINITY, f64::min), logs().fold(f64::NEG_INFINITY, f64::max));
    assert!(high - low <= 2.0 * clamp + 1e-4, "{low} {high}");
}

fn all_equal(norms: &[f32]) -> bool {
    norms.windows(2).all(|pair| pair[0] == pair[1])
}

#[test]
fn approaches_exact_weights() {
    let layer = Planted::new(0, 1.5);
    let mut predictor = predictor();
    let cold = excess(&predictor, &layer);
    train(&mut predictor, &layer, 0..40);
    let warm = excess(&predictor, &layer);
    assert!(cold > 1.5, "{cold}");
    assert!(warm < 1.03, "{warm}");
}

#[test]
fn guesses_come_in_the_norms_own_unit() {
    let layer = Planted::new(0, 1.0);
    let mut predictor = predictor();
    train(&mut predictor, &layer, 0..40);
    let batch = layer.batch(512, 1 << 30);
    let guess = predictor.guess(batch.h.view(), None).expect("fits");
    assert_eq!(guess.input_norms, product::row_norms(batch.h.view()));
    let ratios: Vec<f32> = guess.dz_norms.iter().zip(&batch.dz_norms).map(|(g, n)| g / n).collect();
    assert!(ratios.iter().all(|&ratio| (0.5..2.0).contains(&ratio)), "{ratios:?}");
}

#[test]
fn knows_nothing_before_the_first_update() {
    let guess = predictor().guess(Planted::new(0, 1.0).batch(5, 0).h.view(), None).expect("fits");
    assert_eq!(guess.dz_norms, [1.0; 5]);
}

#[test]
fn fewer_features_than_inputs_guess_less_well_but_guess() {
    let layer = Planted::new(0, 1.5);
    let errors = [8, 64, 4096].map(|features| {
        let mut predictor =
            NormPredictor::new(IN_FEATURES, PredictorSettings::default().with_features(features)).expect("valid");
        train(&mut predictor, &layer, 0..40);
        excess(&predictor, &layer)
    });
    assert!(errors[0] > errors[1] && errors[1] > errors[2] && errors[2] < 1.03, "{errors:?}");
}

#[test]
fn halves_add_up_to_the_whole() {
    let layer = Planted::new(0, 1.5);
    let mut whole =
        NormPredictor::new(IN_FEATURES, PredictorSettings::default().with_rows_per_update(512)).expect("valid");
    train(&mut whole, &layer, 0..3);
    let mut batch = layer.batch(100, 9);
    // Nothing about a row may depend on which rank it lives on: vanished rows included.
    (batch.dz_norms[3], batch.dz_norms[4], batch.dz_norms[77]) = (0.0, 1e-30, 0.0);
    let scales: Vec<f64> = (0..100).map(|i| 1.0 + f64::from(i % 9)).collect();
    let cached: Vec<Option<f32>> = (0..100).map(|i| (i % 3 > 0).then(|| batch.dz_norms[i] * 1.5)).collect();
    let part = |from: usize, to: usize| {
        let cached = Some(&cached[from..to]);
        whole.statistics(batch.h.slice(s![from..to, ..]), &batch.dz_norms[from..to], &scales[from..to], cached)
    };
    let together = part(0, 100).expect("valid");
    // Exact, so that neither the cuts nor the order shows.
    for cuts in [vec![0, 100], vec![1, 0, 100], vec![37, 100], vec![100, 50, 3, 99]] {
        let mut cuts = [cuts, vec![0, 100]].concat();
        cuts.sort_unstable();
        let parts = cuts.windows(2).map(|cut| part(cut[0], cut[1]).expect("valid"));
        for parts in [parts.clone().collect::<Vec<_>>(), parts.rev().collect()] {
            let mut sum = parts[0].clone();
            parts[1..].iter().for_each(|part| sum.add(part).expect("of one kind"));
            assert!(sum.sums().iter().zip(together.sums()).all(|(a, b)| a.to_bits() == b.to_bits()), "{cuts:?}");
            let (mut one, mut other) = (whole.clone(), whole.clone());
            one.apply(&together).expect("fits");
            other.apply(&sum).expect("fits");
            assert_eq!(one.to_bytes(), other.to_bytes());
        }
    }
    let small = NormPredictor::new(4, PredictorSettings::default()).expect("valid");
    let other = small.statistics(Array2::<f32>::ones((1, 4)).view(), &[1.0], &[1.0], None).expect("valid");
    assert!(matches!(together.clone().add(&other), Err(PredictorError::LengthMismatch { .. })));
    assert!(matches!(whole.apply(&other), Err(PredictorError::LengthMismatch { .. })));
    for value in [f64::NAN, f64::NEG_INFINITY, 1e200] {
        let mut broken = together.clone();
        broken.sums_mut()[5] = value;
        assert!(matches!(whole.apply(&broken), Err(PredictorError::InvalidStatistics { index: 5, .. })));
    }
}

#[test]
fn bytes_continue_bit_for_bit() {
    let layer = Planted::new(0, 1.5);
    let settings = PredictorSettings::default().with_features(60).with_seed(11).with_forgetting(0.9);
    let mut one = NormPredictor::new(IN_FEATURES, settings).expect("valid");
    for steps in [0..0, 0..5, 5..6] {
        train(&mut one, &layer, steps);
        let mut other = NormPredictor::from_bytes(&one.to_bytes()).expect("just written");
        let mut same = one.clone();
        train(&mut same, &layer, 50..54);
        train(&mut other, &layer, 50..54);
        assert_eq!(other.to_bytes(), same.to_bytes());
        let h = layer.batch(64, 99).h;
        assert_eq!(other.guess(h.view(), None), same.guess(h.view(), None));
        assert_eq!((other.settings(), other.in_features()), (settings, IN_FEATURES));
    }
}

#[test]
fn settings_without_a_limit_are_saved_too() {
    for rows_per_update in [1, u32::MAX as usize, usize::MAX] {
        let settings = PredictorSettings::default().with_features(4).with_rows_per_update(rows_per_update);
        let made = NormPredictor::new(8, settings).expect("valid settings");
        let loaded = NormPredictor::from_bytes(&made.to_bytes()).expect("just written");
        assert_eq!(loaded.settings().rows_per_update, rows_per_update);
    }
}

#[test]
fn damaged_bytes_are_refused() {
    let mut predictor = NormPredictor::new(IN_FEATURES, PredictorSettings::default().with_features(8)).expect("valid");
    train(&mut predictor, &Planted::new(0, 1.0), 0..2);
    let bytes = predictor.to_bytes();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        assert!(NormPredictor::from_bytes(&damaged).is_err(), "byte {at}");
        assert!(NormPredictor::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
    }
    let mut newer = bytes.clone();
    newer[8] = 5;
    assert_eq!(NormPredictor::from_bytes(&newer).err(), Some(PredictorError::Version { expected: 4, found: 5 }));
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(NormPredictor::from_bytes(&longer), Err(PredictorError::Corrupted { .. })));
}

#[test]
fn state_is_below_a_megabyte() {
    for in_features in [384, 1536, 4096] {
        let predictor = NormPredictor::new(in_features, PredictorSettings::default()).expect("valid");
        assert!(predictor.bytes() < 1_000_000 && predictor.to_bytes().len() < 1_000_000);
    }
}

#[test]
fn every_number_of_threads_gives_the_same() {
    let layer = Planted::new(0, 1.5);
    let states = [1, 2, 5].map(|threads| {
        let pool = rayon_pool(threads);
        pool.install(|| {
            let mut predictor = predictor();
            train(&mut predictor, &layer, 0..4);
            (predictor.to_bytes(), predictor.guess(layer.batch(3000, 80).h.view(), None).expect("fits"))
        })
    });
    assert!(states[0] == states[1] && states[1] == states[2]);
}

fn rayon_pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads")
}

#[test]
fn types_and_strides_do_not_matter() {
    let layer = Planted::new(0, 1.0);
    let mut predictor = predictor();
    train(&mut predictor, &layer, 0..5);
    let half = layer.batch(40, 20).h.mapv(bf16::from_f32);
    let single = half.mapv(f32::from);
    let expected = predictor.guess(single.view(), None).expect("fits");
    assert_eq!(predictor.guess(half.view(), None), Ok(expected.clone()));
    let transposed = half.t().to_owned();
    assert_eq!(predictor.guess(transposed.t(), None), Ok(expected.clone()));
    let close = |found: Vec<f32>| found.iter().zip(&expected.dz_norms).all(|(a, b)| (a / b - 1.0).abs() < 1e-2);
    assert!(close(predictor.guess(half.mapv(f64::from).view(), None).expect("fits").dz_norms));
    assert!(close(predictor.guess(single.mapv(f16::from_f32).view(), None).expect("fits").dz_norms));

    let (norms, scales) = (vec![0.5; 40], vec![2.0; 40]);
    let states = [half.view(), transposed.t()].map(|rows: ArrayView2<'_, bf16>| {
        let mut other = predictor.clone();
        other.update(rows, &norms, &scales, None).expect("valid");
        other.to_bytes()
    });
    predictor.update(single.view(), &norms, &scales, None).expect("valid");
    assert!(states[0] == states[1] && states[0] == predictor.to_bytes());
}

#[test]
fn a_cached_norm_helps_where_the_law_is_not_linear() {
    // A part of the norm that h knows nothing of, and the cache does.
    let layer = Planted::new(0, 1.0);
    let mut rng = Philox4x32_10::new(3, 0);
    let mut hidden = |batch: &mut Batch| -> Vec<Option<f32>> {
        let cached = batch.dz_norms.iter_mut().enumerate().map(|(i, norm)| {
            let own: f32 = StandardNormal.sample(&mut rng);
            *norm *= own.exp();
            // Remembered from a time when all gradients were larger, and not for every token.
            (i % 5 > 0).then_some(*norm * 20.0)
        });
        cached.collect()
    };
    // So many rows of a law that is linear but for that part need little of a ridge.
    let settings = PredictorSettings::default().with_ridge(0.01);
    let mut predictor = NormPredictor::new(IN_FEATURES, settings).expect("valid");
    for step in 0..30 {
        let mut batch = layer.batch(128, step);
        let cached = hidden(&mut batch);
        predictor.update(batch.h.view(), &batch.dz_norms, &[1.0; 128], Some(&cached)).expect("valid");
    }
    let mut batch = layer.batch(1024, 1 << 30);
    let cached = hidden(&mut batch);
    let error = |dz_norms: &[f32]| {
        let weights = Weights::from_norms(&product::row_norms(batch.h.view()), dz_norms).expect("valid");
        tail_error(&batch, &weights, Keep::Fraction(0.3))
    };
    let without = error(&predictor.guess(batch.h.view(), None).expect("fits").dz_norms);
    let with = predictor.guess(batch.h.view(), Some(&cached)).expect("fits").dz_norms;
    assert!(error(&with) < 0.7 * without, "{} {without}", error(&with));
    assert_bounded(&with, 6.0);
    let none = vec![None; 1024];
    assert_eq!(predictor.guess(batch.h.view(), Some(&none)), predictor.guess(batch.h.view(), None));
    let zeros = predictor.guess(batch.h.view(), Some(&vec![Some(0.0); 1024])).expect("a zero is a norm");
    assert_bounded(&zeros.dz_norms, 6.0);
}

#[test]
fn hostile_rows_stay_bounded() {
    let layer = Planted::new(0, 1.5);
    let mut predictor = predictor();
    train(&mut predictor, &layer, 0..10);
    let mut batch = layer.batch(64, 70);
    for (i, factor) in [1e30, 1e-30, 1e37, 1e-38, 1e-44, 0.0].into_iter().enumerate() {
        batch.h.row_mut(i).mapv_inplace(|v| v * factor);
    }
    batch.h.row_mut(6).fill(f32::MAX / 64.0);
    batch.h.row_mut(7).fill(f32::MIN_POSITIVE);
    let guess = predictor.guess(batch.h.view(), None).expect("fits");
    assert_bounded(&guess.dz_norms, 6.0);
    // Length is not looked at: only direction is, apart from what denormal numbers lose.
    let plain = predictor.guess(layer.batch(64, 70).h.view(), None).expect("fits");
    assert!((0..4).all(|i| (guess.dz_norms[i] / plain.dz_norms[i] - 1.0).abs() < 1e-2));

    // Kept, with the most extreme norms and scales that are valid.
    let norms: Vec<f32> = (0..64).map(|i| [f32::MAX, f32::MIN_POSITIVE, 1e-45, 1.0][i % 4]).collect();
    let scales: Vec<f64> = (0..64).map(|i| [1.0, 2.0_f64.powi(64), 1e-300, 0.0][i / 4 % 4]).collect();
    for _ in 0..20 {
        predictor.update(batch.h.view(), &norms, &scales, None).expect("valid");
        assert_bounded(&predictor.guess(batch.h.view(), None).expect("fits").dz_norms, 6.0);
    }
    // And it finds its way back.
    train(&mut predictor, &layer, 100..300);
    let after = excess(&predictor, &layer);
    assert!(after < 1.5, "{after}");
}

#[test]
fn one_outlier_meets_the_clamp() {
    let settings = PredictorSettings::default().with_clamp(0.5);
    let mut predictor = NormPredictor::new(IN_FEATURES, settings).expect("valid");
    train(&mut predictor, &Planted::new(0, 3.0), 0..10);
    for tokens in [1, 2, 3, 100] {
        let guess = predictor.guess(Planted::new(0, 3.0).batch(tokens, 90).h.view(), None).expect("fits");
        assert_bounded(&guess.dz_norms, 0.5);
    }
}

#[test]
fn a_row_that_is_no_number_is_left_to_the_weights() {
    let layer = Planted::new(0, 1.0);
    let mut predictor = predictor();
    train(&mut predictor, &layer, 0..3);
    let mut h = layer.batch(8, 0).h;
    (h[[2, 5]], h[[4, 0]]) = (f32::NAN, f32::INFINITY);
    let guess = predictor.guess(h.view(), None).expect("fits");
    assert_bounded(&guess.dz_norms, 6.0);
    assert!(Weights::from_norms(&guess.input_norms, &guess.dz_norms).is_err());
    let before = predictor.to_bytes();
    let refused = predictor.update(h.view(), &[1.0; 8], &[1.0; 8], None);
    assert!(matches!(refused, Err(PredictorError::InvalidNorm { index: 2, .. })), "{refused:?}");
    assert_eq!(predictor.to_bytes(), before);
}

#[test]
fn constant_rows_teach_nothing_but_the_level() {
    let mut predictor = predictor();
    let h = Array2::<f32>::from_elem((50, IN_FEATURES), 0.3);
    let norms: Vec<f32> = (0..50).map(|i| (1 + i % 4) as f32).collect();
    for _ in 0..30 {
        predictor.update(h.view(), &norms, &[2.0; 50], None).expect("valid");
    }
    let guess = predictor.guess(h.view(), None).expect("fits").dz_norms;
    assert!(all_equal(&guess) && (1.0..4.0).contains(&guess[0]), "{guess:?}");
    let other = predictor.guess(Planted::new(0, 1.0).batch(20, 0).h.view(), None).expect("fits").dz_norms;
    assert!(other.iter().all(|norm| (norm / guess[0] - 1.0).abs() < 1e-3), "{other:?} {guess:?}");
}

#[test]
fn vanished_gradients_are_learned_as_small_and_alone_as_nothing() {
    let layer = Planted::new(0, 0.5);
    let mut predictor = predictor();
    train(&mut predictor, &layer, 0..3);
    let before = predictor.to_bytes();
    predictor.update(layer.batch(16, 5).h.view(), &[0.0; 16], &[1.0; 16], None).expect("valid");
    assert_eq!(predictor.to_bytes(), before, "a step of zeros");

    // Padding: one and the same row, whose gradient is zero.
    let padding: Vec<f32> = (0..IN_FEATURES).map(|j| (j % 5) as f32 - 2.0).collect();
    let padded = |step| {
        let mut batch = layer.batch(128, step);
        for (i, mut row) in batch.h.axis_iter_mut(Axis(0)).enumerate().filter(|(i, _)| i % 4 == 0) {
            row.assign(&ndarray::aview1(&padding));
            batch.dz_norms[i] = if i % 8 == 0 { 0.0 } else { 1e-30 };
        }
        batch
    };
    for step in 10..40 {
        let batch = padded(step);
        predictor.update(batch.h.view(), &batch.dz_norms, &[3.0; 128], None).expect("valid");
    }
    let batch = padded(99);
    let guess = predictor.guess(batch.h.view(), None).expect("fits").dz_norms;
    assert_bounded(&guess, 6.0);
    let largest_padding = guess.iter().step_by(4).fold(0.0_f32, |a, &b| a.max(b));
    let others = (0..128).filter(|i| i % 4 > 0).map(|i| guess[i]).fold(f32::INFINITY, f32::min);
    assert!(largest_padding < 0.1 * others, "{largest_padding} {others}");
}

#[test]
fn padding_does_not_bring_the_other_tokens_together() {
    // Nine of ten rows are padding without a gradient: their guesses must not draw the bounds down onto the others'.
    let layer = Planted::new(0, 1.0);
    let padding: Vec<f32> = (0..IN_FEATURES).map(|j| (j % 5) as f32 - 2.0).collect();
    let padded = |step| {
        let mut batch = layer.batch(647, step);
        for (i, mut row) in batch.h.axis_iter_mut(Axis(0)).enumerate().filter(|(i, _)| i % 10 > 0) {
            row.assign(&ndarray::aview1(&padding));
            batch.dz_norms[i] = 0.0;
        }
        batch
    };
    let mut predictor = predictor();
    for step in 0..40 {
        let batch = padded(step);
        predictor.update(batch.h.view(), &batch.dz_norms, &[1.0; 647], None).expect("valid");
    }
    let batch = padded(1 << 30);
    let guess = predictor.guess(batch.h.view(), None).expect("fits").dz_norms;
    let spread = |norms: &[f32]| {
        let tokens = || norms.iter().step_by(10);
        tokens().fold(0.0_f32, |a, &b| a.max(b)) / tokens().fold(f32::INFINITY, |a, &b| a.min(b))
    };
    let ratio = spread(&guess) / spread(&batch.dz_norms);
    assert!((0.3..3.0).contains(&ratio), "{} {}", spread(&guess), spread(&batch.dz_norms));
    assert!(guess[1] < 0.1 * guess.iter().step_by(10).fold(f32::INFINITY, |a, &b| a.min(b)), "{guess:?}");
}

#[test]
fn sums_that_no_rows_have_are_refused() {
    let layer = Planted::new(0, 1.0);
    let mut predictor = predictor();
    train(&mut predictor, &layer, 0..3);
    let before = predictor.to_bytes();
    let batch = layer.batch(8, 9);
    let valid = predictor.statistics(batch.h.view(), &batch.dz_norms, &[1.0; 8], None).expect("valid");
    // The scalars first: weight of rows with a logarithm, their logarithms' sum, weight of the others, of the faint.
    for (index, value) in [(0, 1e-30), (0, -1.0), (1, 1e6), (2, -8.0), (3, -1.0), (3, 1.0), (40, 1e17), (41, f64::NAN)]
    {
        let mut sums = valid.clone();
        sums.sums_mut()[index] = value;
        let refused = predictor.apply(&sums);
        assert!(matches!(refused, Err(PredictorError::InvalidStatistics { .. })), "{index} {value}: {refused:?}");
        assert_eq!(predictor.to_bytes(), before);
    }
    predictor.apply(&valid).expect("sums of rows");
}

#[test]
fn a_change_of_scale_is_invisible() {
    let mut layer = Planted::new(0, 1.5);
    let mut predictor = predictor();
    train(&mut predictor, &layer, 0..30);
    for (step, level) in [(30, 20.0), (60, -50.0), (90, -3.0)] {
        layer.level = level;
        // A fall by more than the clamp costs the one step that finds the new level.
        train(&mut predictor, &layer, step..step + 2);
        let after = excess(&predictor, &layer);
        assert!(after < 1.05, "{level}: {after}");
        let mean = predictor.guess(layer.batch(64, 200).h.view(), None).expect("fits").dz_norms[0].ln();
        assert!((f64::from(mean) - level).abs() < 6.0, "{level}: {mean}");
    }
}

#[test]
fn tiny_batches() {
    let layer = Planted::new(0, 0.5);
    let mut predictor = predictor();
    let empty = Array2::<f32>::zeros((0, IN_FEATURES));
    let before = predictor.to_bytes();
    predictor.update(empty.view(), &[], &[], None).expect("nothing to learn");
    assert_eq!(predictor.to_bytes(), before);
    assert!(predictor.guess(empty.view(), None).expect("fits").dz_norms.is_empty());
    for step in 0..20 {
        let batch = layer.batch(1, step);
        predictor.update(batch.h.view(), &batch.dz_norms, &[4.0], None).expect("valid");
        let guess = predictor.guess(batch.h.view(), None).expect("fits").dz_norms;
        // As fine as the grid on which log-norms are counted.
        assert!((guess[0] / batch.dz_norms[0] - 1.0).abs() < 1e-3, "{step}: {guess:?} {:?}", batch.dz_norms);
    }
    // Within one row there is nothing to compare.
    assert!(all_equal(&predictor.guess(layer.batch(9, 30).h.view(), None).expect("fits").dz_norms));
    let mut one_column = NormPredictor::new(1, PredictorSettings::default()).expect("valid");
    let h = ndarray::array![[1.0_f32], [-1.0], [2.0], [-3.0]];
    for _ in 0..20 {
        one_column.update(h.view(), &[1.0, 4.0, 1.0, 4.0], &[1.0; 4], None).expect("valid");
    }
    let guess = one_column.guess(h.view(), None).expect("fits").dz_norms;
    assert!(guess[0] == guess[2] && guess[1] > 3.0 * guess[0], "{guess:?}");
}

#[test]
fn refusals_leave_the_state() {
    let layer = Planted::new(0, 1.0);
    let mut predictor = predictor();
    train(&mut predictor, &layer, 0..3);
    let before = predictor.to_bytes();
    let h = layer.batch(4, 8).h;
    for value in [f32::NAN, f32::INFINITY, -1.0] {
        let refused = predictor.update(h.view(), &[1.0, 1.0, value, 1.0], &[1.0; 4], None);
        assert!(matches!(refused, Err(PredictorError::InvalidNorm { index: 2, .. })), "{refused:?}");
        let cached = [None, Some(1.0), None, Some(value)];
        let refused = predictor.update(h.view(), &[1.0; 4], &[1.0; 4], Some(&cached));
        assert!(matches!(refused, Err(PredictorError::InvalidNorm { index: 3, .. })), "{refused:?}");
        assert!(predictor.guess(h.view(), Some(&cached)).is_err());
    }
    for value in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        let refused = predictor.update(h.view(), &[1.0; 4], &[1.0, value, 1.0, 1.0], None);
        assert!(matches!(refused, Err(PredictorError::InvalidScale { index: 1, .. })), "{refused:?}");
    }
    assert!(predictor.update(h.view(), &[1.0; 3], &[1.0; 4], None).is_err());
    assert!(predictor.update(h.view(), &[1.0; 4], &[1.0; 3], None).is_err());
    assert!(predictor.update(h.view(), &[1.0; 4], &[1.0; 4], Some(&[None])).is_err());
    let narrow = Array2::<f32>::zeros((4, 3));
    let refused = PredictorError::WrongColumns { expected: IN_FEATURES, found: 3 };
    assert_eq!(predictor.update(narrow.view(), &[1.0; 4], &[1.0; 4], None), Err(refused.clone()));
    assert_eq!(predictor.guess(narrow.view(), None), Err(refused));
    assert_eq!(predictor.to_bytes(), before);
}

#[test]
fn settings_are_checked() {
    let valid = PredictorSettings::default();
    for (settings, name) in [
        (valid.with_features(0), "features"),
        (valid.with_features(usize::MAX), "features"),
        (valid.with_forgetting(0.0), "forgetting"),
        (valid.with_forgetting(1.5), "forgetting"),
        (valid.with_ridge(0.0), "ridge"),
        (valid.with_ridge(f64::NAN), "ridge"),
        (valid.with_clamp(0.0), "clamp"),
        (valid.with_clamp(1e3), "clamp"),
        (valid.with_rows_per_update(0), "rows_per_update"),
    ] {
        let refused = NormPredictor::new(8, settings).err();
        assert!(
            matches!(refused, Some(PredictorError::InvalidSetting { name: found, .. }) if found == name),
            "{refused:?}"
        );
    }
    assert!(NormPredictor::new(0, valid).is_err());
    assert!(NormPredictor::new(8, valid.with_forgetting(1.0)).is_ok());
}

#[test]
fn more_rows_than_learned_from_are_thinned_evenly() {
    let layer = Planted::new(0, 1.5);
    let settings = PredictorSettings::default().with_rows_per_update(40);
    let mut thin = NormPredictor::new(IN_FEATURES, settings).expect("valid");
    let batch = layer.batch(120, 0);
    let all = thin.statistics(batch.h.view(), &batch.dz_norms, &[1.0; 120], None).expect("valid");
    let third = batch.h.slice(s![1..;3, ..]);
    let norms: Vec<f32> = batch.dz_norms.iter().skip(1).step_by(3).copied().collect();
    assert_eq!(all, thin.statistics(third, &norms, &[3.0; 40], None).expect("valid"));
    train(&mut thin, &layer, 0..60);
    assert!(excess(&thin, &layer) < 1.05);
}
