//! A recorded layer, against the CPU.

use super::case::element;
use crate::common::{for_each_machine, testdata};
use half::f16;
use ndarray::{Array2, ArrayView2};
use safetensors::SafeTensors;
use wtacrs_core::Randomness;
use wtacrs_core::product;
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Keep, Weights};
use wtacrs_kernels::kernel::gather_gemm::Args;
use wtacrs_kernels::kernel::matrix::DataType;
use wtacrs_kernels::kernel::matrix::Spacing;
use wtacrs_kernels::kernel::{SPLIT_REDUCE, split_reduce};
use wtacrs_kernels::plan::tiling::{Multiplier, ProductSizes, tiling};

struct RealLayer {
    h: Array2<f32>,
    dz: Array2<f32>,
}

fn layer() -> RealLayer {
    let path = testdata("minilm_l3_value_imdb_1024.safetensors");
    let bytes = std::fs::read(path).expect("the bundled layer is there");
    let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let matrix = |name: &str| {
        let view = tensors.tensor(name).expect("the tensor is there");
        let values = match view.dtype() {
            safetensors::Dtype::F32 => {
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            _ => view.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect::<Vec<_>>(),
        };
        Array2::from_shape_vec((view.shape()[0], view.shape()[1]), values).expect("as many values as the shape has")
    };
    RealLayer { h: matrix("h"), dz: matrix("dz") }
}

/// ‖found − expected‖ / ‖expected‖.
fn distance(found: ArrayView2<'_, f32>, expected: ArrayView2<'_, f32>) -> f64 {
    let square = |x: &f64| x * x;
    let difference = found.mapv(f64::from) - expected.mapv(f64::from);
    (difference.iter().map(square).sum::<f64>() / expected.mapv(f64::from).iter().map(square).sum::<f64>()).sqrt()
}

#[test]
fn a_real_layer_equals_the_cpu() {
    let RealLayer { h, dz } = layer();
    let weights = Weights::from_norms(&product::row_norms(h.view()), &product::row_norms(dz.view())).expect("finite");
    let budget = weights.budget(Keep::Fraction(0.3)).expect("fits");
    let selection = BuiltIn::WtaPivotal.select_seeded(&weights, budget, Randomness::new(7, 0));
    let kept = product::gather(h.view(), &selection).expect("fits");
    let expected = product::weight_gradient(kept.view(), dz.view(), &selection).expect("fits");
    let saved = product::gather_scaled(h.view(), &selection).expect("fits");
    let (rows, in_features, out_features) = (saved.nrows(), h.ncols(), dz.ncols());

    for_each_machine(|machine| {
        // Many gradients of this layer are so small that f16 rounds them coarsely.
        for (multiplier, tolerance) in
            [(Multiplier::F32, 1e-5), (Multiplier::Tf32, 1e-3), (Multiplier::Bf16, 1e-2), (Multiplier::F16, 2e-3)]
        {
            let of = element(multiplier);
            let bytes = |matrix: &Array2<f32>| {
                let mut bytes = Vec::new();
                matrix.iter().for_each(|&value| of.put(f64::from(value), &mut bytes));
                bytes
            };
            let sizes = ProductSizes {
                in_features: in_features as u32,
                out_features: out_features as u32,
                rows: rows as u32,
                batch: 1,
            };
            let tiling = tiling(multiplier, sizes, machine.device().multiprocessors);
            let (saved, dz) = (machine.upload(&bytes(&saved)), machine.upload(&bytes(&dz)));
            let indices = machine.upload(selection.indices());
            let dw = machine.unwritten::<f32>(in_features * out_features);
            let partials = machine.unwritten::<u8>(tiling.partial_bytes as usize);
            let args = Args {
                saved: saved.bytes(),
                saved_leading: in_features as u64,
                saved_spacing: Spacing::even(0),
                dz: dz.bytes(),
                dz_leading: out_features as u64,
                dz_spacing: Spacing::even(0),
                indices: indices.pointer(),
                count: std::ptr::null(),
                rows: rows as u32,
                in_features: in_features as u32,
                out_features: out_features as u32,
                splits: tiling.splits,
                accumulate: 0,
                output: DataType::F32 as u32,
                dw: dw.bytes(),
                dw_leading: out_features as u64,
                dw_spacing: Spacing::even(0),
                partials: partials.bytes().cast(),
            };
            let (kernel, shape) = tiling.launch(args.row_layout(of.bytes() as u32));
            // SAFETY: buffers are of the sizes that the case has, and live until dw is downloaded.
            unsafe {
                machine.run(kernel, shape, &args);
                if let Some(shape) = tiling.reduce {
                    machine.run(&SPLIT_REDUCE, shape, &split_reduce::Args::of_product(&args));
                }
            }
            let found = machine.download(&dw);
            let found = ArrayView2::from_shape((in_features, out_features), &found).expect("as many as dw has");
            let distance = distance(found, expected.view());
            assert!(distance <= tolerance, "{machine:?}: {multiplier:?} is {distance:e} off");
        }
    });
}
