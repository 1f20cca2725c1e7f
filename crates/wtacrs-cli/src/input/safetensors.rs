//! Layers in safetensors files, the usual format of checkpoints and recorded activations.

use super::{InputError, Keys, Layer, Tensor, Values, assemble};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

/// The layer in the bytes of a safetensors file, in f32, f16 or bf16.
///
/// # Errors
///
/// See [`InputError`]. A file may lack the previous norms.
pub fn read_safetensors(bytes: &[u8], keys: &Keys) -> Result<Layer, InputError> {
    let file = SafeTensors::deserialize(bytes)?;
    let has_norms = file.names().contains(&keys.dz_norm_prev.as_str());
    assemble(
        read_tensor(&file, &keys.h)?,
        read_tensor(&file, &keys.dz)?,
        has_norms.then(|| read_tensor(&file, &keys.dz_norm_prev)).transpose()?,
    )
}

fn read_tensor(file: &SafeTensors<'_>, key: &str) -> Result<Tensor, InputError> {
    let Ok(view) = file.tensor(key) else {
        return Err(InputError::missing(key, file.names()));
    };
    let name = format!("tensor '{key}'");
    let values = decode_values(view.data(), view.dtype(), &name)?;
    Ok(Tensor { name, shape: view.shape().to_vec(), column_major: false, values })
}

/// The values of a tensor of type f32, f16 or bf16.
pub(super) fn decode_values(data: &[u8], dtype: Dtype, name: &str) -> Result<Values, InputError> {
    match dtype {
        Dtype::F32 => Ok(Values::F32(decode(data, f32::from_le_bytes))),
        Dtype::F16 => Ok(Values::F16(decode(data, f16::from_le_bytes))),
        Dtype::BF16 => Ok(Values::Bf16(decode(data, bf16::from_le_bytes))),
        other => Err(unsupported(name.to_owned(), other)),
    }
}

pub(super) fn unsupported(tensor: String, dtype: Dtype) -> InputError {
    InputError::UnsupportedType { tensor, found: dtype.to_string(), expected: "F32, F16 and BF16" }
}

fn decode<T, const BYTES: usize>(data: &[u8], value: impl Fn([u8; BYTES]) -> T) -> Vec<T> {
    data.as_chunks().0.iter().map(|&bytes| value(bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Matrix;
    use safetensors::tensor::TensorView;

    type Entry<'a> = (&'a str, Dtype, Vec<usize>, Vec<u8>);

    fn file(entries: &[Entry<'_>]) -> Vec<u8> {
        let views = entries.iter().map(|(name, dtype, shape, data)| {
            (*name, TensorView::new(*dtype, shape.clone(), data).expect("a valid tensor"))
        });
        safetensors::serialize(views, None).expect("valid tensors")
    }

    fn ones<'a>(name: &'a str, shape: &[usize]) -> Entry<'a> {
        (name, Dtype::F32, shape.to_vec(), 1_f32.to_le_bytes().repeat(shape.iter().product()))
    }

    fn refusal(bytes: &[u8]) -> String {
        read_safetensors(bytes, &Keys::default()).expect_err("must be refused").to_string()
    }

    /// A file with an arbitrary header.
    fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
    }

    /// The parser quotes the text that it refuses, line breaks included.
    #[test]
    fn a_message_stays_one_line() {
        let header = b"{\"h\": \n\x1b[2J";
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header].concat();
        let message = read_safetensors(&bytes, &Keys::default()).expect_err("must be refused").to_string();
        assert!(!message.contains(char::is_control), "{message:?}");
    }

    #[test]
    fn a_layer_of_mixed_types() {
        let h: Vec<u8> = [0.5, -2.0, 3.0, 4.0].into_iter().flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect();
        let bytes = file(&[
            ("x", Dtype::BF16, vec![2, 2], h),
            ("dz", Dtype::F16, vec![2, 1], f16::from_f32(1.5).to_le_bytes().repeat(2)),
            ones("dz_norm_prev", &[2]),
        ]);
        let layer = read_safetensors(&bytes, &Keys { h: "x".to_owned(), ..Keys::default() }).expect("a valid file");
        let Matrix::Bf16(h) = &layer.h else { panic!("bf16 stays bf16") };
        assert_eq!(h.mapv(bf16::to_f32), ndarray::array![[0.5, -2.0], [3.0, 4.0]]);
        assert!(matches!(&layer.dz, Matrix::F16(dz) if dz.dim() == (2, 1)));
        assert_eq!(layer.dz_norm_prev, Some(vec![1.0, 1.0]));
        assert!(refusal(&bytes).starts_with("there is no tensor 'h', only 'dz', 'dz_norm_prev', 'x'"));
    }

    #[test]
    fn the_norms_may_be_missing() {
        let bytes = file(&[ones("h", &[2, 3]), ones("dz", &[2, 1])]);
        assert_eq!(read_safetensors(&bytes, &Keys::default()).expect("a valid file").dz_norm_prev, None);
    }

    #[test]
    fn shapes_that_do_not_fit() {
        let dz = ones("dz", &[2, 1]);
        let refuse = |entries: &[Entry<'_>]| refusal(&file(entries));
        assert_eq!(
            refuse(&[ones("h", &[2, 3, 1]), dz.clone()]),
            "tensor 'h' has shape [2, 3, 1]: it must be tokens × features"
        );
        assert_eq!(refuse(&[ones("h", &[0, 3]), dz.clone()]), "tensor 'h' has shape [0, 3]: it is empty");
        assert_eq!(refuse(&[ones("h", &[3, 3]), dz.clone()]), "tensor 'dz' is for 2 tokens, but H has 3");
        assert_eq!(
            refuse(&[ones("h", &[2, 3]), dz.clone(), ones("dz_norm_prev", &[3])]),
            "tensor 'dz_norm_prev' is for 3 tokens, but H has 2"
        );
        assert_eq!(
            refuse(&[ones("h", &[2, 3]), dz.clone(), ones("dz_norm_prev", &[2, 1])]),
            "tensor 'dz_norm_prev' has shape [2, 1]: it must be one norm for each token"
        );
        let integers = ("h", Dtype::I64, vec![2, 1], vec![0; 16]);
        assert_eq!(refuse(&[integers, dz]), "tensor 'h' is of type I64: F32, F16 and BF16 can be read");
    }

    #[test]
    fn values_that_are_not_finite() {
        let values: Vec<u8> = [1.0, 2.0, f32::NAN, f32::INFINITY].into_iter().flat_map(f32::to_le_bytes).collect();
        let bad = |name| (name, Dtype::F32, vec![2, 2], values.clone());
        assert_eq!(
            refusal(&file(&[bad("h"), ones("dz", &[2, 1])])),
            "tensor 'h' is NaN at row 1, column 0: all values must be finite"
        );
        let negative = ("dz_norm_prev", Dtype::F32, vec![2], [1_f32, -2.0].map(f32::to_le_bytes).concat());
        assert_eq!(
            refusal(&file(&[ones("h", &[2, 1]), ones("dz", &[2, 1]), negative])),
            "tensor 'dz_norm_prev' is -2 for token 1: a norm must be finite and not negative"
        );
    }

    #[test]
    fn corrupt_files() {
        let whole = file(&[ones("h", &[2, 3]), ones("dz", &[2, 1])]);
        for length in 0..whole.len() {
            assert!(refusal(&whole[..length]).starts_with("not a readable safetensors file: "), "{length} bytes");
        }
        for header in ["", "{", "[]", "nonsense", r#"{"h":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}"#] {
            assert!(refusal(&with_header(header, &[0; 4])).starts_with("not a readable safetensors file: "));
        }
        let huge = format!(r#"{{"h":{{"dtype":"F32","shape":[{},4],"data_offsets":[0,4]}}}}"#, u64::MAX);
        assert!(refusal(&with_header(&huge, &[0; 4])).contains("overflow"));
        let hollow = format!(
            r#"{{"h":{{"dtype":"F32","shape":[{},0],"data_offsets":[0,0]}},"dz":{{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}}}"#,
            u64::MAX
        );
        assert!(refusal(&with_header(&hollow, &[0; 4])).ends_with("it is empty"));
    }
}
