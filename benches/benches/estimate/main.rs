//! Times the whole estimate of dW against the exact product, on the same cores: norms of H and of dZ, selection, gather,
//! product. The target is k/n + 0.06 of the exact product's time.
//!
//! `cargo bench -p wtacrs-benches --bench estimate` prints criterion's times and then tables of print_ratios.

mod packed;
mod predictor;

use criterion::{BenchmarkId, Criterion};
use ndarray::{Array2, s};
use std::hint::black_box;
use wtacrs_benches::{Case, layer_like, median_times, ms, read_bandwidth, test_mode};
use wtacrs_core::Randomness;
use wtacrs_core::guesses::NormGuess;
use wtacrs_core::layers::{Linear, Saved};
use wtacrs_core::product::{self, Scratch, Update};
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Keep, Weights};

const TOKENS: usize = 4096;
const SHAPES: [(usize, usize); 2] = [(1536, 384), (384, 1536)];
const FRACTIONS: [f64; 2] = [0.1, 0.3];

struct Layer {
    h: Array2<f32>,
    dz: Array2<f32>,
    dz_norms: Vec<f32>,
}

impl Layer {
    fn new((inputs, outputs): (usize, usize)) -> Self {
        let (h, dz) = (layer_like(TOKENS, inputs, 1), layer_like(TOKENS, outputs, 2));
        let dz_norms = product::row_norms(dz.view());
        Self { h, dz, dz_norms }
    }

    fn dw(&self) -> Array2<f32> {
        Array2::zeros((self.h.ncols(), self.dz.ncols()))
    }

    fn exact(&self, dw: &mut Array2<f32>) {
        product::exact_weight_gradient(self.h.view(), self.dz.view(), dw.view_mut(), Update::Overwrite).expect("fits");
    }

    /// The exact product by the crate `gemm`: a peer that this repository does not use.
    fn exact_by_gemm(&self, dw: &mut Array2<f32>) {
        let ((tokens, inputs), outputs) = (self.h.dim(), self.dz.ncols());
        let threads = gemm::Parallelism::Rayon(rayon::current_num_threads());
        // SAFETY: pointers, sizes and strides are those of three distinct standard-layout matrices: dw is inputs ×
        // outputs, Hᵀ is inputs × tokens with strides 1 and inputs, dZ is tokens × outputs.
        unsafe {
            gemm::gemm(
                inputs,
                outputs,
                tokens,
                dw.as_mut_ptr(),
                1,
                outputs as isize,
                false,
                self.h.as_ptr(),
                inputs as isize,
                1,
                self.dz.as_ptr(),
                1,
                outputs as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                threads,
            );
        }
    }

    /// The forward and backward pass of an estimated layer, into memory that is reused from step to step.
    fn estimate(&self, layer: &Linear, memory: &mut (Saved<f32>, Scratch<f32>), dw: &mut Array2<f32>, offset: u64) {
        let (saved, scratch) = memory;
        layer
            .forward_into(self.h.view(), NormGuess::Norms(&self.dz_norms), Randomness::new(1, offset), saved)
            .expect("fits");
        let dw = dw.view_mut();
        black_box(saved.backward_with(self.dz.view(), dw, Update::Overwrite, scratch).expect("fits"));
    }

    fn weights(&self) -> Weights {
        Weights::from_norms(&product::row_norms(self.h.view()), &self.dz_norms).expect("finite")
    }
}

fn criterion_groups(criterion: &mut Criterion) {
    for shape in SHAPES {
        let layer = Layer::new(shape);
        let mut group = criterion.benchmark_group(format!("estimate/{TOKENS}x{}->{}", shape.0, shape.1));
        group.sample_size(20);
        let mut dw = layer.dw();
        group.bench_function("exact", |bencher| bencher.iter(|| layer.exact(&mut dw)));
        group.bench_function("exact, crate gemm", |bencher| bencher.iter(|| layer.exact_by_gemm(&mut dw)));
        for fraction in FRACTIONS {
            let linear = Linear::new(Keep::Fraction(fraction));
            let saved = linear.forward(layer.h.view(), NormGuess::Unknown, Randomness::new(0, 0)).expect("fits");
            let mut memory = (saved, Scratch::new());
            let mut offset = 0;
            group.bench_function(BenchmarkId::new("wta-pivotal", fraction), |bencher| {
                bencher.iter(|| {
                    offset += TOKENS as u64;
                    layer.estimate(&linear, &mut memory, &mut dw, offset);
                });
            });
        }
        group.finish();
    }
}

fn print_ratios() {
    let rounds = if test_mode() { 1 } else { 41 };
    let bandwidth = read_bandwidth();
    println!("\n{TOKENS} tokens, f32, {} threads, reading {:.1} GB/s\n", rayon::current_num_threads(), bandwidth / 1e9);
    println!(
        "| layer | k/n | exact ms | gemm crate / exact | estimate / exact | target | floor / exact | norms H | norms dZ | select | gather | product |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for shape in SHAPES {
        let layer = Layer::new(shape);
        for fraction in FRACTIONS {
            let linear = Linear::new(Keep::Fraction(fraction));
            let weights = layer.weights();
            let budget = weights.budget(linear.keep).expect("fits");
            let selection = linear.design.select_seeded(&weights, budget, Randomness::new(1, 0));
            let kept = product::gather(layer.h.view(), &selection).expect("fits");
            let (dense_h, dense_dz) = (kept.clone(), layer.dz.slice(s![..kept.nrows(), ..]));
            let h_norms = product::row_norms(layer.h.view());
            let saved = linear.forward(layer.h.view(), NormGuess::Unknown, Randomness::new(0, 0)).expect("fits");
            let mut memory = (saved, Scratch::new());
            let mut gathered = kept.clone();
            let mut buffers: [Array2<f32>; 5] = std::array::from_fn(|_| layer.dw());
            let [dw_exact, dw_by_gemm, dw_estimate, dw_of_k_rows, dw_product] = &mut buffers;
            let mut norms = [vec![0.0; TOKENS], vec![0.0; TOKENS]];
            let [norms_of_h, norms_of_dz] = &mut norms;
            let mut scratch = Scratch::new();
            let mut offset = 0;
            let mut cases = [
                Case::new("exact", || layer.exact(dw_exact)),
                Case::new("exact, crate gemm", || layer.exact_by_gemm(dw_by_gemm)),
                Case::new("estimate", || {
                    offset += TOKENS as u64;
                    layer.estimate(&linear, &mut memory, dw_estimate, offset);
                }),
                Case::new("dense product of k rows", || {
                    let dw = dw_of_k_rows.view_mut();
                    product::exact_weight_gradient(dense_h.view(), dense_dz, dw, Update::Overwrite).expect("fits");
                }),
                Case::new("norms H", || product::row_norms_into(layer.h.view(), norms_of_h).expect("fits")),
                Case::new("norms dZ", || product::row_norms_into(layer.dz.view(), norms_of_dz).expect("fits")),
                Case::new("select", || {
                    let weights = Weights::from_norms(&h_norms, &layer.dz_norms).expect("finite");
                    black_box(BuiltIn::WtaPivotal.select_seeded(&weights, budget, Randomness::new(1, 0)));
                }),
                Case::new("gather", || {
                    product::gather_into(layer.h.view(), &selection, gathered.view_mut()).expect("fits");
                }),
                Case::new("product", || {
                    let dw = dw_product.view_mut();
                    product::weight_gradient_into(
                        kept.view(),
                        layer.dz.view(),
                        &selection,
                        dw,
                        Update::Overwrite,
                        &mut scratch,
                    )
                    .expect("fits");
                }),
            ];
            let times = median_times(&mut cases, rounds);
            let exact = ms(times[0]);
            let bytes = size_of_val::<[f32]>(layer.h.as_slice().expect("standard layout"))
                + size_of_val::<[f32]>(layer.dz.as_slice().expect("standard layout"));
            let floor = bytes as f64 / bandwidth * 1e3 + ms(times[3]);
            let steps: Vec<String> = times[4..].iter().map(|&t| format!("{:.3}", ms(t) / exact)).collect();
            println!(
                "| {}→{} | {fraction} | {exact:.2} | {:.2} | **{:.3}** | {:.2} | {:.3} | {} |",
                shape.0,
                shape.1,
                ms(times[1]) / exact,
                ms(times[2]) / exact,
                fraction + 0.06,
                floor / exact,
                steps.join(" | "),
            );
        }
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    criterion_groups(&mut criterion);
    packed::criterion_groups(&mut criterion);
    predictor::criterion_groups(&mut criterion);
    criterion.final_summary();
    print_ratios();
    packed::print_ratios();
    predictor::print_ratios();
}
