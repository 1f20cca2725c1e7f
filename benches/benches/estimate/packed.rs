//! The same with kept rows packed. Packing and unpacking stand alone beside a copy of the same rows.

use crate::{FRACTIONS, Layer, SHAPES, TOKENS};
use criterion::{BenchmarkId, Criterion};
use ndarray::Array2;
use std::hint::black_box;
use wtacrs_benches::{Case, median_times, ms, test_mode};
use wtacrs_core::Randomness;
use wtacrs_core::element::Element;
use wtacrs_core::half::bf16;
use wtacrs_core::layers::{Linear, Saved};
use wtacrs_core::product::{self, Packing, Precision, Update};
use wtacrs_core::sampling::Keep;
use wtacrs_core::sampling::design::Design;
use wtacrs_exact::packing::PackingBits;

/// All rows as well, which are packed without norms, selection and scales.
const PACKED_FRACTIONS: [f64; 3] = [FRACTIONS[0], FRACTIONS[1], 1.0];

pub(crate) fn criterion_groups(criterion: &mut Criterion) {
    for shape in SHAPES {
        let layer = Layer::new(shape, bf16::from_f32);
        let linear = |fraction| Linear::new(Keep::Fraction(fraction)).with_packing(Packing::Bits4);
        let linears = PACKED_FRACTIONS.map(|fraction| (BenchmarkId::new("4 bits", fraction), linear(fraction)));
        crate::criterion_group(criterion, &format!("packed/{TOKENS}x{}->{}, bf16", shape.0, shape.1), &layer, linears);
    }
}

pub(crate) fn print_ratios() {
    println!("\npacked rows, {} threads\n", rayon::current_num_threads());
    println!(
        "| dtype | layer | k/n | bits | exact ms | estimate / exact | gather / exact | pack / gather | unpack / gather | product / exact |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for shape in SHAPES {
        print_ratios_of("f32", shape, |v| v);
        print_ratios_of("bf16", shape, bf16::from_f32);
    }
}

fn print_ratios_of<T: Element<Accumulator = f32>>(dtype: &str, shape: (usize, usize), rounded: fn(f32) -> T) {
    let rounds = if test_mode() { 1 } else { 41 };
    let layer = Layer::new(shape, rounded);
    for fraction in PACKED_FRACTIONS {
        for packing in [Packing::Bits8, Packing::Bits4, Packing::Bits2] {
            let Some(bits) = packing.bits() else { continue };
            let linear = Linear::new(Keep::Fraction(fraction)).with_packing(packing);
            let weights = layer.weights();
            let budget = weights.budget(linear.keep).expect("fits");
            let selection = linear.design.select_seeded(&weights, budget, Randomness::new(1, 0));
            let random = PackingBits::new(Randomness::new(1, 0), 0);
            let of_some = (fraction < 1.0).then_some(&selection);
            let kept = Saved::pack(layer.h.view(), of_some.cloned(), bits, random).expect("finite");
            let rows = kept.rows().packed().expect("packed");
            let mut saved = Saved::default();
            let mut packed = kept.clone();
            let mut gathered = Array2::from_elem((budget.get(), shape.0), T::ZERO);
            let mut buffers: [Array2<f32>; 3] = std::array::from_fn(|_| layer.dw());
            let [dw_exact, dw_estimate, dw_product] = &mut buffers;
            let mut offset = 0;
            let mut cases = [
                Case::new("exact", || layer.exact(dw_exact)),
                Case::new("estimate", || {
                    offset += TOKENS as u64;
                    layer.estimate(&linear, &mut saved, dw_estimate, offset);
                }),
                Case::new("gather", || {
                    product::gather_into(layer.h.view(), &selection, gathered.view_mut()).expect("fits");
                }),
                Case::new("pack", || {
                    packed.repack(layer.h.view(), of_some.cloned(), bits, random).expect("finite");
                }),
                Case::new("unpack", || {
                    black_box(rows.rotated());
                }),
                Case::new("product", || {
                    let dw = dw_product.view_mut();
                    let precision = Precision::default();
                    rows.weight_gradient_into(layer.dz.view(), dw, Update::Overwrite, precision).expect("fits");
                }),
            ];
            let times = median_times(&mut cases, rounds);
            let (exact, gather) = (ms(times[0]), ms(times[2]));
            println!(
                "| {dtype} | {}→{} | {fraction} | {packing} | {exact:.2} | **{:.3}** | {:.3} | {:.2} | {:.2} | {:.3} |",
                shape.0,
                shape.1,
                ms(times[1]) / exact,
                gather / exact,
                ms(times[3]) / gather,
                ms(times[4]) / gather,
                ms(times[5]) / exact,
            );
        }
    }
}
