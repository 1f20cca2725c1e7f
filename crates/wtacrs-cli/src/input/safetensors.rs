//! Safetensors files, the usual format of checkpoints and recorded activations: their headers, and layers in them.

use super::source::{Format, LONGEST_HEADER, signature};
use super::tensor::{Described, Values, read_elements, read_layer};
use super::{InputError, Keys, Layer};
use half::{bf16, f16};
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensorError};
use std::io::{Read, Seek, SeekFrom};

/// Bytes that hold the length of the header.
const LENGTH_BYTES: u64 = 8;

/// The layer in a safetensors file, in f32, f16 or bf16. Tensors that are not asked for are not read.
///
/// # Errors
///
/// See [`InputError`]. A file may lack the previous norms.
pub fn read_safetensors(mut file: impl Read + Seek, keys: &Keys) -> Result<Layer, InputError> {
    let header = Header::read(&mut file)?;
    let has_norms = header.tensors.info(&keys.dz_norm_prev).is_some();
    read_layer(
        header.describe(&keys.h)?,
        header.describe(&keys.dz)?,
        has_norms.then(|| header.describe(&keys.dz_norm_prev)).transpose()?,
        |tensor| {
            let (dtype, start) = tensor.place;
            file.seek(SeekFrom::Start(start))?;
            read_values(&mut file, &tensor.name, dtype, tensor.len())
        },
    )
}

/// What a file contains, and where.
#[derive(Debug)]
pub(super) struct Header {
    tensors: Metadata,
    data_start: u64,
}

impl Header {
    /// Reads it, and checks that it fits the file.
    pub(super) fn read(file: &mut (impl Read + Seek)) -> Result<Self, InputError> {
        match Format::of(&signature(file)?) {
            None | Some(Format::Safetensors) => {}
            Some(found) => return Err(InputError::OtherFormat { found }),
        }
        let found = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        let mut length = [0; LENGTH_BYTES as usize];
        if found < LENGTH_BYTES {
            return Err(SafeTensorError::HeaderTooSmall.into());
        }
        file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        if length > found - LENGTH_BYTES {
            return Err(SafeTensorError::InvalidHeaderLength.into());
        }
        if length > LONGEST_HEADER {
            return Err(InputError::HeaderTooLong { length, most: LONGEST_HEADER });
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header)?;
        let tensors: Metadata =
            serde_json::from_slice(&header).map_err(SafeTensorError::InvalidHeaderDeserialization)?;
        let data_start = LENGTH_BYTES + length;
        let expected = data_start.saturating_add(tensors.data_len() as u64);
        if expected != found {
            return Err(InputError::WrongFileLength { expected, found });
        }
        Ok(Self { tensors, data_start })
    }

    /// A tensor, and where it begins in the file.
    pub(super) fn find(&self, key: &str) -> Result<(&TensorInfo, u64), InputError> {
        let info = self.tensors.info(key).ok_or_else(|| InputError::missing(key, self.tensors.offset_keys()))?;
        Ok((info, self.data_start + info.data_offsets.0 as u64))
    }

    fn describe(&self, key: &str) -> Result<Described<(Dtype, u64)>, InputError> {
        let (info, start) = self.find(key)?;
        let name = format!("tensor '{key}'");
        check_type(&name, info.dtype)?;
        Ok(Described { name, shape: info.shape.clone(), column_major: false, place: (info.dtype, start) })
    }
}

/// Reads `count` values of type f32, f16 or bf16 from where the file is.
pub(super) fn read_values(file: &mut impl Read, name: &str, dtype: Dtype, count: usize) -> Result<Values, InputError> {
    match dtype {
        Dtype::F32 => read_elements(file, name, count, f32::from_le_bytes).map(Values::F32),
        Dtype::F16 => read_elements(file, name, count, f16::from_le_bytes).map(Values::F16),
        Dtype::BF16 => read_elements(file, name, count, bf16::from_le_bytes).map(Values::Bf16),
        other => Err(unsupported(name, other)),
    }
}

/// Refuses types that [`read_values`] refuses.
pub(super) fn check_type(name: &str, dtype: Dtype) -> Result<(), InputError> {
    match dtype {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 => Ok(()),
        other => Err(unsupported(name, other)),
    }
}

fn unsupported(name: &str, dtype: Dtype) -> InputError {
    let advice = match dtype {
        Dtype::U16 | Dtype::I16 => "; if these are the bits of bf16, save tensor.view(torch.bfloat16)",
        Dtype::F64 => "; save tensor.float()",
        _ => "",
    };
    let (tensor, found) = (name.to_owned(), dtype.to_string());
    InputError::UnsupportedType { tensor, found, expected: "F32, F16 and BF16", advice }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Matrix;
    use safetensors::tensor::TensorView;
    use std::io::Cursor;

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
        read_safetensors(Cursor::new(bytes), &Keys::default()).expect_err("must be refused").to_string()
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
        let message = read_safetensors(Cursor::new(&bytes), &Keys::default()).expect_err("must be refused").to_string();
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
        let layer = read_safetensors(Cursor::new(&bytes), &Keys { h: "x".to_owned(), ..Keys::default() })
            .expect("a valid file");
        let Matrix::Bf16(h) = &layer.h else { panic!("bf16 stays bf16") };
        assert_eq!(h.mapv(bf16::to_f32), ndarray::array![[0.5, -2.0], [3.0, 4.0]]);
        assert!(matches!(&layer.dz, Matrix::F16(dz) if dz.dim() == (2, 1)));
        assert_eq!(layer.dz_norm_prev, Some(vec![1.0, 1.0]));
        assert!(refusal(&bytes).starts_with("there is no tensor 'h', only 'dz', 'dz_norm_prev', 'x'"));
    }

    #[test]
    fn the_norms_may_be_missing() {
        let bytes = file(&[ones("h", &[2, 3]), ones("dz", &[2, 1])]);
        assert_eq!(read_safetensors(Cursor::new(&bytes), &Keys::default()).expect("a valid file").dz_norm_prev, None);
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
        assert_eq!(refuse(&[integers, dz.clone()]), "tensor 'h' is of type I64: F32, F16 and BF16 can be read");
        let doubles = ("h", Dtype::F64, vec![2, 1], vec![0; 16]);
        assert!(refuse(&[doubles, dz.clone()]).ends_with("F32, F16 and BF16 can be read; save tensor.float()"));
        let bits = ("h", Dtype::U16, vec![2, 1], vec![0; 4]);
        assert_eq!(
            refuse(&[bits, dz]),
            "tensor 'h' is of type U16: F32, F16 and BF16 can be read; \
             if these are the bits of bf16, save tensor.view(torch.bfloat16)"
        );
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
    fn files_of_other_formats() {
        for (bytes, name) in [
            (b"\x93NUMPY\x01\x00v\x00{'descr'".as_slice(), "a .npy file"),
            (b"PK\x03\x04\x00\x00\x00\x00\x00\x00", "a zip archive, as .npz files and PyTorch's are"),
            (b"\x89HDF\r\n\x1a\n\x00", "an HDF5 file"),
        ] {
            assert_eq!(refusal(bytes), format!("not a safetensors file, but {name}"));
        }
    }

    #[test]
    fn corrupt_files() {
        let whole = file(&[ones("h", &[2, 3]), ones("dz", &[2, 1])]);
        for length in 0..whole.len() {
            let message = refusal(&whole[..length]);
            let data_start = whole.len() - (6 + 2) * size_of::<f32>();
            let expected = if length < data_start { "not a readable safetensors file: " } else { "the file is " };
            assert!(message.starts_with(expected), "{length} bytes: {message}");
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
