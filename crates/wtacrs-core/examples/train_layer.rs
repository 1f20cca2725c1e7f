//! Trains one linear layer on a made-up regression, once with exact gradients and once from a tenth of its activations.
//!
//!     cargo run --release -p wtacrs-core --example train_layer

use ndarray::{Array2, Axis};
use wtacrs_core::guesses::{NormGuess, NormPredictor, PredictorSettings};
use wtacrs_core::layers::{Linear, Update};
use wtacrs_core::product::exact_weight_gradient;
use wtacrs_core::rand_core::Rng;
use wtacrs_core::sampling::{Keep, Philox4x32_10, Randomness};

const TOKENS: usize = 2048;
const IN_FEATURES: usize = 64;
const OUT_FEATURES: usize = 16;
const STEPS: u64 = 150;
const LEARNING_RATE: f32 = 0.5;

/// One step's batch: H (tokens × in_features) and targets (tokens × out_features), which a hidden layer makes of it. One
/// token in eight is much louder than the others, as in real activations.
fn batch(step: u64, hidden: &Array2<f32>) -> (Array2<f32>, Array2<f32>) {
    let mut rng = Philox4x32_10::new(7, step << 32);
    let mut number = || rng.next_u32() as f32 / u32::MAX as f32 - 0.5;
    let mut h = Array2::from_shape_fn((TOKENS, IN_FEATURES), |_| number());
    h.axis_chunks_iter_mut(Axis(0), 8).for_each(|mut rows| rows.row_mut(0).mapv_inplace(|v| 4.0 * v));
    let targets = h.dot(hidden).mapv(f32::tanh);
    (h, targets)
}

/// Mean squared error of Z against its targets, and dZ of that loss.
fn loss(z: &Array2<f32>, targets: &Array2<f32>) -> (f32, Array2<f32>) {
    let difference = z - targets;
    let mean = difference.iter().map(|d| d * d).sum::<f32>() / TOKENS as f32;
    (mean, difference * (2.0 / TOKENS as f32))
}

/// Loss of the first and of the last step, and bytes of activations saved in a step.
fn train(layer: Option<Linear>) -> Result<(f32, f32, usize), Box<dyn std::error::Error>> {
    let hidden = Array2::from_shape_fn((IN_FEATURES, OUT_FEATURES), |(i, j)| ((i * 5 + j * 3) % 7) as f32 / 6.0 - 0.5);
    let mut w = Array2::<f32>::zeros((IN_FEATURES, OUT_FEATURES));
    let mut dw = Array2::zeros(w.dim());
    let mut predictor = NormPredictor::new(IN_FEATURES, PredictorSettings::default())?;
    let mut randomness = Randomness::new(1, 0);
    let (mut first, mut last, mut saved_bytes) = (None, 0.0, 0);
    for step in 0..STEPS {
        let (h, targets) = batch(step, &hidden);
        let z = h.dot(&w);
        let (mean, dz) = loss(&z, &targets);
        match layer {
            None => {
                saved_bytes = size_of_val(&h[[0, 0]]) * h.len();
                exact_weight_gradient(h.view(), dz.view(), dw.view_mut(), Update::Overwrite)?;
            }
            Some(layer) => {
                // Forward: keep a tenth of H, chosen by ‖h_i‖ and a guess of ‖dZ_i‖.
                let saved = layer.forward(h.view(), NormGuess::Predicted(&predictor), randomness)?;
                randomness = randomness.next(layer.draws(TOKENS)?);
                saved_bytes = saved.bytes();
                drop(h);
                // Backward: dW from the kept rows, and the lesson for the next guess.
                let norms = saved.backward(dz.view(), dw.view_mut(), Update::Overwrite)?;
                predictor.learn(&saved, &norms, None)?;
            }
        }
        w.scaled_add(-LEARNING_RATE, &dw);
        first.get_or_insert(mean);
        last = mean;
    }
    Ok((first.unwrap_or(last), last, saved_bytes))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (name, layer) in [("exact", None), ("a tenth", Some(Linear::new(Keep::Fraction(0.1))))] {
        let (first, last, bytes) = train(layer)?;
        println!(
            "{name:<8} loss {first:.3} → {last:.3} in {STEPS} steps, {:>4} KiB of activations saved",
            bytes / 1024
        );
    }
    Ok(())
}
