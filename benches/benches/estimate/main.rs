//! Times the whole estimate of dW against the exact product, on the same cores: norms of H and of dZ, selection, gather,
//! product; and the exact product against that of the crate gemm.
//!
//! `cargo bench -p wtacrs-benches --bench estimate` prints criterion's times and then tables of print_ratios.

mod packed;
mod predictor;

use criterion::{BenchmarkId, Criterion};
use ndarray::{Array2, s};
use std::hint::black_box;
use wtacrs_benches::{Case, layer_like, median_times, ms, read_bandwidth, test_mode};
use wtacrs_core::Randomness;
use wtacrs_core::element::Element;
use wtacrs_core::guesses::NormGuess;
use wtacrs_core::half::{bf16, f16};
use wtacrs_core::layers::{Linear, Saved};
use wtacrs_core::product::{self, Precision, Update};
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Keep, Weights};

const TOKENS: usize = 4096;
const SHAPES: [(usize, usize); 2] = [(1536, 384), (384, 1536)];
const FRACTIONS: [f64; 2] = [0.1, 0.3];

struct Layer<T = f32> {
    h: Array2<T>,
    dz: Array2<T>,
    dz_norms: Vec<f32>,
}

impl<T: Element<Accumulator = f32>> Layer<T> {
    fn new((inputs, outputs): (usize, usize), rounded: fn(f32) -> T) -> Self {
        let (h, dz) = (layer_like(TOKENS, inputs, 1).mapv(rounded), layer_like(TOKENS, outputs, 2).mapv(rounded));
        let dz_norms = product::row_norms(dz.view());
        Self { h, dz, dz_norms }
    }

    fn dw(&self) -> Array2<f32> {
        Array2::zeros((self.h.ncols(), self.dz.ncols()))
    }

    fn exact(&self, dw: &mut Array2<f32>) {
        product::exact_weight_gradient(self.h.view(), self.dz.view(), dw.view_mut(), Update::Overwrite).expect("fits");
    }

    /// The forward and backward pass of an estimated layer, into memory that is reused from step to step.
    fn estimate(&self, layer: &Linear, saved: &mut Saved<T>, dw: &mut Array2<f32>, offset: u64) {
        layer
            .forward_into(self.h.view(), NormGuess::Norms(&self.dz_norms), Randomness::new(1, offset), saved)
            .expect("fits");
        black_box(saved.backward(self.dz.view(), dw.view_mut(), Update::Overwrite).expect("fits"));
    }

    fn weights(&self) -> Weights {
        Weights::from_norms(&product::row_norms(self.h.view()), &self.dz_norms).expect("finite")
    }
}

impl Layer<f32> {
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
}

fn criterion_groups(criterion: &mut Criterion) {
    for shape in SHAPES {
        let single = Layer::new(shape, |v| v);
        let mut dw = single.dw();
        let name = format!("exact/{TOKENS}x{}->{}, crate gemm, f32", shape.0, shape.1);
        criterion.bench_function(&name, |bencher| bencher.iter(|| single.exact_by_gemm(&mut dw)));
        criterion_group_of(criterion, shape, "f32", &single);
        criterion_group_of(criterion, shape, "bf16", &Layer::new(shape, bf16::from_f32));
        criterion_group_of(criterion, shape, "f16", &Layer::new(shape, f16::from_f32));
    }
}

fn criterion_group_of<T>(criterion: &mut Criterion, (inputs, outputs): (usize, usize), dtype: &str, layer: &Layer<T>)
where
    T: Element<Accumulator = f32>,
{
    let linears =
        FRACTIONS.map(|fraction| (BenchmarkId::new("wta-pivotal", fraction), Linear::new(Keep::Fraction(fraction))));
    criterion_group(criterion, &format!("estimate/{TOKENS}x{inputs}->{outputs}, {dtype}"), layer, linears);
}

/// Times the exact product and estimates, each by its name.
fn criterion_group<T: Element<Accumulator = f32>>(
    criterion: &mut Criterion,
    name: &str,
    layer: &Layer<T>,
    linears: impl IntoIterator<Item = (BenchmarkId, Linear)>,
) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20);
    let mut dw = layer.dw();
    group.bench_function("exact", |bencher| bencher.iter(|| layer.exact(&mut dw)));
    for (id, linear) in linears {
        let mut saved = Saved::default();
        let mut offset = 0;
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                offset += TOKENS as u64;
                layer.estimate(&linear, &mut saved, &mut dw, offset);
            });
        });
    }
    group.finish();
}

fn print_ratios() {
    let bandwidth = read_bandwidth();
    println!("\n{TOKENS} tokens, {} threads, reading {:.1} GB/s\n", rayon::current_num_threads(), bandwidth / 1e9);
    println!(
        "| dtype | layer | k/n | exact ms | gemm crate, f32 / exact | estimate / exact | estimate / f32's | floor / exact | norms H | norms dZ | select | gather | product |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for shape in SHAPES {
        print_ratios_of("f32", shape, bandwidth, |v| v);
        print_ratios_of("bf16", shape, bandwidth, bf16::from_f32);
        print_ratios_of("f16", shape, bandwidth, f16::from_f32);
    }
}

fn print_ratios_of<T>(dtype: &str, shape: (usize, usize), bandwidth: f64, rounded: fn(f32) -> T)
where
    T: Element<Accumulator = f32>,
{
    let rounds = if test_mode() { 1 } else { 41 };
    let (single, layer) = (Layer::new(shape, |v| v), Layer::new(shape, rounded));
    for fraction in FRACTIONS {
        let linear = Linear::new(Keep::Fraction(fraction));
        let weights = layer.weights();
        let budget = weights.budget(linear.keep).expect("fits");
        let selection = linear.design.select_seeded(&weights, budget, Randomness::new(1, 0));
        let kept = product::gather(layer.h.view(), &selection).expect("fits");
        let (dense_h, dense_dz) = (kept.clone(), layer.dz.slice(s![..kept.nrows(), ..]));
        let h_norms = product::row_norms(layer.h.view());
        let mut saved = Saved::default();
        let mut gathered = kept.clone();
        let mut buffers: [Array2<f32>; 6] = std::array::from_fn(|_| layer.dw());
        let [dw_exact, dw_by_gemm, dw_estimate, dw_of_k_rows, dw_of_f32, dw_product] = &mut buffers;
        let mut norms = [vec![0.0; TOKENS], vec![0.0; TOKENS]];
        let [norms_of_h, norms_of_dz] = &mut norms;
        let (mut offset, mut of_f32_offset, mut saved_f32) = (0, 0, Saved::default());
        let mut cases = [
            Case::new("exact", || layer.exact(dw_exact)),
            Case::new("exact, crate gemm", || single.exact_by_gemm(dw_by_gemm)),
            Case::new("estimate", || {
                offset += TOKENS as u64;
                layer.estimate(&linear, &mut saved, dw_estimate, offset);
            }),
            Case::new("dense product of k rows", || {
                let dw = dw_of_k_rows.view_mut();
                product::exact_weight_gradient(dense_h.view(), dense_dz, dw, Update::Overwrite).expect("fits");
            }),
            Case::new("estimate, f32", || {
                of_f32_offset += TOKENS as u64;
                single.estimate(&linear, &mut saved_f32, dw_of_f32, of_f32_offset);
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
                    Precision::default(),
                )
                .expect("fits");
            }),
        ];
        let times = median_times(&mut cases, rounds);
        let exact = ms(times[0]);
        let bytes = (layer.h.len() + layer.dz.len()) * size_of::<T>();
        let floor = bytes as f64 / bandwidth * 1e3 + ms(times[3]);
        let steps: Vec<String> = times[5..].iter().map(|&t| format!("{:.3}", ms(t) / exact)).collect();
        println!(
            "| {dtype} | {}→{} | {fraction} | {exact:.2} | {:.2} | **{:.3}** | {:.2} | {:.3} | {} |",
            shape.0,
            shape.1,
            ms(times[1]) / exact,
            ms(times[2]) / exact,
            ms(times[2]) / ms(times[4]),
            floor / exact,
            steps.join(" | "),
        );
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
