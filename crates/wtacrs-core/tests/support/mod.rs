//! The recorded layers of testdata/, for tests.
#![allow(dead_code, unreachable_pub)]

use half::bf16;
use ndarray::{Array1, Array2, Array4, Ix4};
use safetensors::SafeTensors;
use std::path::PathBuf;

pub fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

fn read(name: &str) -> Vec<u8> {
    let path = testdata(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A linear layer: tokens × features, and the norms of dZ at the samples' previous visit.
pub struct Layer {
    pub h: Array2<f32>,
    pub dz: Array2<f32>,
    pub dz_norm_prev: Array1<f32>,
}

pub fn layer(name: &str) -> Layer {
    let bytes = read(&format!("{name}.safetensors"));
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let values = |key: &str| -> (Vec<usize>, Vec<f32>) {
        let tensor = tensors.tensor(key).expect(key);
        assert_eq!(tensor.dtype(), safetensors::Dtype::F32);
        let values = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")));
        (tensor.shape().to_vec(), values.collect())
    };
    let matrix = |key| {
        let (shape, values) = values(key);
        Array2::from_shape_vec((shape[0], shape[1]), values).expect("the shape of the data")
    };
    Layer { h: matrix("h"), dz: matrix("dz"), dz_norm_prev: values("dz_norm_prev").1.into() }
}

/// A tensor of the bundled attention layer, batch × heads × rows × columns.
pub fn attention(key: &str) -> Array4<bf16> {
    let bytes = read("minilm_attn2_imdb_1_bf16.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = tensors.tensor(key).expect(key);
    let values: Vec<bf16> =
        tensor.data().chunks_exact(2).map(|b| bf16::from_le_bytes(b.try_into().expect("two bytes"))).collect();
    ndarray::ArrayD::from_shape_vec(tensor.shape(), values)
        .and_then(|array| array.into_dimensionality::<Ix4>())
        .expect("four axes")
}
