//! Recorded training steps replayed on the kernels: the error that the predictor's weights leave is the CPU's, within 1 %.
//!
//! As `wtacrs replay` does it: at each step the weights are measured, √(Σ (1/π_i − 1) ‖h_i‖²‖dz_i‖²) / ‖dW‖, and only then
//! does the predictor learn, from the rows that the default design keeps under its own weights. Norms and guesses come
//! from `row_norms`, the rows from `gather_rows`, with their scales as training saves them or without.

use crate::common::{Buffer, Machine, for_each_machine};
use crate::matrices::{Place, Tested, Uploaded};
use half::bf16;
use ndarray::Array2;
use safetensors::SafeTensors;
use wtacrs_core::Randomness;
use wtacrs_core::guesses::{NormPredictor, PredictorSettings};
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Budget, Keep, Selection, Weights};
use wtacrs_core::{product, theory};
use wtacrs_kernels::kernel::matrix::Spacing;
use wtacrs_kernels::kernel::predictor_update as update;
use wtacrs_kernels::kernel::{PREDICTOR_APPLY, PREDICTOR_SUMS, gather_rows, row_norms};
use wtacrs_kernels::plan::PredictorPlan;

const RECORDING: &str = "minilm_steps_l2_value_small_bf16.safetensors";

/// One training step of one layer.
struct Step {
    h: Array2<bf16>,
    dz_norms: Vec<f32>,
    g_norm: f64,
}

fn steps() -> Vec<Step> {
    let file = std::fs::read(crate::common::testdata(RECORDING)).expect("the bundled recording");
    let tensors = SafeTensors::deserialize(&file).expect("a safetensors file");
    let tensor = |name| tensors.tensor(name).expect("a recording's tensor");
    let singles =
        |name| tensor(name).data().as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect::<Vec<_>>();
    let [_, tokens, in_features] = tensor("h").shape().try_into().expect("three dimensions");
    let h: Vec<bf16> = tensor("h").data().as_chunks::<2>().0.iter().map(|v| bf16::from_le_bytes(*v)).collect();
    let (dz_norms, g_norms) = (singles("dz_norm"), singles("g_norm"));
    let step = |(t, &g_norm): (usize, &f32)| Step {
        h: Array2::from_shape_vec(
            (tokens, in_features),
            h[t * tokens * in_features..][..tokens * in_features].to_vec(),
        )
        .expect("as many values as the shape says"),
        dz_norms: dz_norms[t * tokens..][..tokens].to_vec(),
        g_norm: g_norm.into(),
    };
    g_norms.iter().enumerate().map(step).collect()
}

/// The predictor's two sides. Saved rows may carry their scales, rounded with them.
trait Learner {
    fn weights(&mut self, h: &Array2<bf16>) -> Weights;
    fn learn(&mut self, step: &Step, selection: &Selection, are_scaled: bool);
}

impl Learner for NormPredictor {
    fn weights(&mut self, h: &Array2<bf16>) -> Weights {
        let guess = self.guess(h.view(), None).expect("a layer's columns");
        Weights::from_norms(&guess.input_norms, &guess.dz_norms).expect("finite norms")
    }

    fn learn(&mut self, step: &Step, selection: &Selection, are_scaled: bool) {
        let rows = if are_scaled {
            product::gather_scaled(step.h.view(), selection).map(|rows| rows.mapv(bf16::from_f32))
        } else {
            product::gather(step.h.view(), selection)
        };
        let rows = rows.expect("a selection of these rows");
        let dz_norms: Vec<f32> = selection.iter().map(|(token, _)| step.dz_norms[token]).collect();
        self.update(rows.view(), &dz_norms, selection.scales(), None).expect("valid rows");
    }
}

/// The predictor in a machine's memory, and all that it works with.
struct Kernels<'a> {
    machine: &'a mut Machine,
    settings: PredictorSettings,
    in_features: u32,
    state: Buffer<u8>,
}

impl Learner for Kernels<'_> {
    fn weights(&mut self, h: &Array2<bf16>) -> Weights {
        let (tokens, machine) = (h.nrows(), &mut *self.machine);
        let x = Uploaded::new(machine, std::slice::from_ref(h), Place::TIGHT, bf16::NAN);
        let (norms, directions) = (machine.unwritten::<f32>(tokens), machine.unwritten::<f32>(tokens));
        let layout = update::State::new(self.in_features, self.settings.features as u32);
        let args = row_norms::Args {
            x: x.pointer(),
            leading: x.leading(),
            spacing: Spacing::even(0),
            rows: tokens as u32,
            columns: self.in_features,
            theta: self.state.bytes().wrapping_add(layout.theta as usize).cast(),
            norms: norms.pointer(),
            directions: directions.pointer(),
            cached: std::ptr::null(),
            placement: self.state.bytes().wrapping_add(layout.placement as usize).cast(),
            clamp: 0.0,
            exchange: std::ptr::null_mut(),
            exchange_words: 0,
        };
        // SAFETY: the buffers have the sizes that the arguments say.
        unsafe {
            machine.run(&bf16::norms(&args), row_norms::shape(tokens as u32, self.in_features, 1, bf16::BYTES), &args)
        };
        let clamp = self.settings.clamp;
        let guesses =
            machine.download(&directions).into_iter().map(|log| f64::from(log).clamp(-clamp, clamp).exp() as f32);
        let guesses: Vec<f32> = guesses.collect();
        Weights::from_norms(&machine.download(&norms), &guesses).expect("finite norms")
    }

    fn learn(&mut self, step: &Step, selection: &Selection, are_scaled: bool) {
        let (budget, features, machine) = (selection.len(), self.settings.features as u32, &mut *self.machine);
        let h = Uploaded::new(machine, std::slice::from_ref(&step.h), Place::TIGHT, bf16::NAN);
        let nothing = Array2::from_elem((budget, step.h.ncols()), bf16::NAN);
        let saved = Uploaded::new(machine, &[nothing], Place::TIGHT, bf16::NAN);
        let (indices, scales) = (machine.upload(selection.indices()), machine.upload(selection.scales()));
        let gather = gather_rows::Args {
            x: h.pointer(),
            leading: h.leading(),
            spacing: Spacing::even(0),
            columns: self.in_features,
            rows: budget as u32,
            indices: indices.pointer(),
            scales: if are_scaled { scales.pointer() } else { std::ptr::null() },
            count: std::ptr::null(),
            out: saved.pointer(),
            out_leading: saved.leading(),
            out_spacing: Spacing::even(0),
        };
        let rows_per_update = self.settings.rows_per_update as u32;
        let scratch_bytes = update::scratch_bytes(budget as u32, rows_per_update, self.in_features, features);
        let scratch = machine.unwritten::<u8>(scratch_bytes as usize);
        let sums = machine.unwritten::<f64>(update::sums_len(self.in_features, features));
        let (dz_norms, status) = (machine.upload(&step.dz_norms), machine.unwritten::<u32>(2));
        let args = update::Args {
            rows: saved.pointer(),
            leading: saved.leading(),
            in_features: self.in_features,
            features,
            budget: budget as u32,
            rows_per_update,
            count: std::ptr::null(),
            indices: indices.pointer(),
            dz_norms: dz_norms.pointer(),
            cached_norms: std::ptr::null(),
            scales: scales.pointer(),
            forgetting: self.settings.forgetting,
            ridge: self.settings.ridge,
            clamp: self.settings.clamp,
            state: self.state.pointer(),
            scratch: scratch.pointer(),
            sums: sums.pointer(),
            status: status.pointer(),
        };
        let features_shape = update::features_shape(budget as u32, rows_per_update, self.in_features, features);
        // SAFETY: the buffers have the sizes that the arguments say, and indices are of rows of H.
        unsafe {
            let shape = gather_rows::shape(budget as u32, self.in_features, 1, bf16::BYTES);
            machine.run(&bf16::gather(&gather), shape, &gather);
            machine.run(&bf16::FEATURES, features_shape, &args);
            machine.run(&PREDICTOR_SUMS, update::sums_shape(self.in_features, features), &args);
            machine.run(&PREDICTOR_APPLY, update::apply_shape(), &args);
        }
        assert_eq!(machine.download(&status), [update::Outcome::Learned as u32, 0]);
    }
}

/// The mean error over the second half of the steps.
fn replay(learner: &mut dyn Learner, steps: &[Step], budget: Budget, are_scaled: bool) -> f64 {
    let (design, mut offset, mut errors) = (BuiltIn::WtaPivotal, 0, Vec::new());
    for step in steps {
        let weights = learner.weights(&step.h);
        let norms = product::row_norms(step.h.view());
        let squared = |token: usize| (f64::from(norms[token]) * f64::from(step.dz_norms[token])).powi(2);
        errors.push(theory::poisson_variance(&weights, budget, squared).sqrt() / step.g_norm);
        let selection = design.select_seeded(&weights, budget, Randomness::new(0, offset));
        offset += design.draws(budget);
        learner.learn(step, &selection, are_scaled);
    }
    let second_half = &errors[errors.len() / 2..];
    second_half.iter().sum::<f64>() / second_half.len() as f64
}

#[test]
fn the_error_on_recorded_steps_is_the_cpus() {
    let steps = steps();
    let (tokens, in_features) = steps[0].h.dim();
    for_each_machine(|machine| {
        // The PTX takes several times as long for a step, and its arithmetic is the emulator's.
        let steps = if machine.interprets() { &steps[..8] } else { &steps[..] };
        for (fraction, features, are_scaled) in [(0.3, 64, true), (0.3, 256, false), (0.1, 100, false)] {
            let budget = Keep::Fraction(fraction).budget(tokens).expect("a fraction");
            let settings = PredictorSettings::default().with_features(features);
            let mut cpu = NormPredictor::new(in_features, settings).expect("valid settings");
            let state = machine.upload(&PredictorPlan::first_bytes(&cpu).expect("few enough features"));
            let mut kernels = Kernels { machine, settings, in_features: in_features as u32, state };
            let found = replay(&mut kernels, steps, budget, are_scaled);
            let expected = replay(&mut cpu, steps, budget, are_scaled);
            assert!((found / expected - 1.0).abs() < 0.01, "{fraction} {features}: {found} {expected}");
        }
    });
}
