//! Layers in .npy files, which NumPy's `save` writes: one file for each matrix.

use super::{InputError, Layer, Tensor, Values, assemble};
use half::bf16;
use npyz::{DType, FixedSizeBytes, NpyFile, Order, TypeChar};

/// Bytes before the length of the header.
const PREAMBLE: usize = 8;
/// Digits in the header of a matrix: its type has one, so that no product of the dimensions reaches 10¹⁹ < 2⁶⁴.
const MOST_DIGITS: usize = 19;
/// A header is one dictionary with one tuple in it.
const MOST_BRACKETS: usize = 4;

/// The layer in the bytes of up to three .npy files: H, dZ, and the previous norms of dZ's rows.
///
/// Types are f32, f16, f64, which is rounded to f32, and bf16 as `ml_dtypes` stores it, two raw bytes (V2). Both byte
/// orders and both memory orders are read.
///
/// # Errors
///
/// See [`InputError`].
pub fn read_npy(h: &[u8], dz: &[u8], dz_norm_prev: Option<&[u8]>) -> Result<Layer, InputError> {
    assemble(
        read_tensor(h, "h")?,
        read_tensor(dz, "dz")?,
        dz_norm_prev.map(|bytes| read_tensor(bytes, "dz_norm_prev")).transpose()?,
    )
}

fn read_tensor(bytes: &[u8], name: &str) -> Result<Tensor, InputError> {
    let unreadable = |reason: String| InputError::NotNpy { tensor: name.to_owned(), reason };
    check_header(bytes).map_err(|reason| unreadable(reason.to_owned()))?;
    let mut data = bytes;
    let file = NpyFile::new(&mut data).map_err(|error| unreadable(error.to_string()))?;
    let header = file.header().clone();
    let shape: Vec<usize> = header.shape().iter().map(|&size| size as usize).collect();

    let DType::Plain(type_string) = header.dtype() else {
        return Err(unsupported(name, &header.dtype()));
    };
    let size = type_string.size_field();
    if header.len().checked_mul(size) != Some(data.len() as u64) {
        return Err(InputError::WrongLength { tensor: name.to_owned(), shape, found: data.len() });
    }
    let file = NpyFile::with_header(header.clone(), data);
    let values = match (type_string.type_char(), size) {
        (TypeChar::Float, 4) => file.into_vec().map(Values::F32),
        (TypeChar::Float, 2) => file.into_vec().map(Values::F16),
        (TypeChar::Float, 8) => {
            file.into_vec().map(|wide: Vec<f64>| Values::F32(wide.into_iter().map(|value| value as f32).collect()))
        }
        (TypeChar::RawData, 2) => file.into_vec().map(|raw: Vec<FixedSizeBytes<2>>| {
            Values::Bf16(raw.into_iter().map(|bytes| bf16::from_le_bytes(bytes.0)).collect())
        }),
        _ => return Err(unsupported(name, &header.dtype())),
    };
    let values = values.map_err(|error| unreadable(error.to_string()))?;
    Ok(Tensor { name: name.to_owned(), shape, column_major: header.order() == Order::Fortran, values })
}

fn unsupported(name: &str, dtype: &DType) -> InputError {
    let expected = "f4, f2, f8 and V2 (bf16)";
    InputError::UnsupportedType { tensor: name.to_owned(), found: dtype.descr(), expected }
}

/// Refuses headers that the parser (of a Python literal) does not guard against: a length beyond the file, for which it
/// would allocate; nesting that exhausts the stack; dimensions whose product overflows.
fn check_header(bytes: &[u8]) -> Result<(), &'static str> {
    let (Some(preamble), Some(rest)) = (bytes.get(..PREAMBLE), bytes.get(PREAMBLE..)) else {
        return Err("it is too short");
    };
    if !preamble.starts_with(b"\x93NUMPY") {
        return Err("it does not start as one");
    }
    let length_bytes = if preamble[6] == 1 { 2 } else { 4 };
    let (Some(length), Some(rest)) = (rest.get(..length_bytes), rest.get(length_bytes..)) else {
        return Err("it is too short");
    };
    let length = length.iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte));
    let header = rest.get(..length).ok_or("its header is cut off")?;

    let count = |wanted: fn(&u8) -> bool| header.iter().filter(|byte| wanted(byte)).count();
    let nested = count(|byte| b"([{".contains(byte)) > MOST_BRACKETS;
    let hexadecimal = header.windows(2).any(|pair| pair.eq_ignore_ascii_case(b"0x"));
    if nested || hexadecimal || count(u8::is_ascii_digit) > MOST_DIGITS {
        return Err("its header is not that of a matrix or a vector of numbers");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Matrix;
    use half::f16;

    fn file(descr: &str, shape: &str, fortran: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    fn ones(shape: &str, count: usize) -> Vec<u8> {
        file("<f4", shape, "False", &1_f32.to_le_bytes().repeat(count))
    }

    fn refusal(h: &[u8]) -> String {
        read_npy(h, &ones("(2, 1)", 2), None).expect_err("must be refused").to_string()
    }

    #[test]
    fn every_type_and_order() {
        let values = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0];
        let by_rows = ndarray::array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
        let read = |descr: &str, fortran: &str, data: Vec<u8>| {
            let norms = ones("(2,)", 2);
            let layer = read_npy(&file(descr, "(2, 3)", fortran, &data), &ones("(2, 1)", 2), Some(&norms));
            let layer = layer.expect("a valid layer");
            assert_eq!(layer.dz_norm_prev, Some(vec![1.0; 2]));
            match layer.h {
                Matrix::F32(h) => h,
                Matrix::F16(h) => h.mapv(f16::to_f32),
                Matrix::Bf16(h) => h.mapv(bf16::to_f32),
            }
        };
        assert_eq!(read("<f4", "False", values.map(f32::to_le_bytes).concat()), by_rows);
        assert_eq!(read(">f4", "False", values.map(f32::to_be_bytes).concat()), by_rows);
        assert_eq!(read("<f2", "False", values.map(|v| f16::from_f32(v).to_le_bytes()).concat()), by_rows);
        assert_eq!(read("<f8", "False", values.map(|v| f64::from(v).to_le_bytes()).concat()), by_rows);
        for raw in ["|V2", "<V2"] {
            assert_eq!(read(raw, "False", values.map(|v| bf16::from_f32(v).to_le_bytes()).concat()), by_rows);
        }
        let by_columns = read("<f4", "True", [1.0_f32, 4.0, 2.0, 5.0, 3.0, 6.0].map(f32::to_le_bytes).concat());
        assert_eq!(by_columns, by_rows);
        assert!(by_columns.is_standard_layout());
    }

    #[test]
    fn what_cannot_be_read() {
        let four = 1_f32.to_le_bytes().repeat(4);
        let refuse = |descr: &str, shape: &str| refusal(&file(descr, shape, "False", &four));
        assert_eq!(refuse("<i8", "(2, 1)"), "h is of type '<i8': f4, f2, f8 and V2 (bf16) can be read");
        assert_eq!(refuse("<f4", "(4,)"), "h has shape [4]: it must be tokens × features");
        assert_eq!(refuse("<f4", "(2, 3)"), "h has shape [2, 3], but its data is 16 bytes long");
        assert_eq!(refuse("<f4", "(4, 1)"), "dz is for 2 tokens, but H has 4");
        assert_eq!(refusal(&file("<f4", "(0, 3)", "False", &[])), "h has shape [0, 3]: it is empty");
        let infinite = file("<f8", "(1, 2)", "False", &[1.0, 1e300_f64].map(f64::to_le_bytes).concat());
        assert_eq!(refusal(&infinite), "h is inf at row 0, column 1: all values must be finite");
    }

    #[test]
    fn corrupt_files() {
        let whole = ones("(2, 1)", 2);
        for length in 0..whole.len() {
            refusal(&whole[..length]);
        }
        for shape in [
            "(18446744073709551615, 2)",
            "(0xFFFFFFFFFFFFFFFF, 0xFF)",
            "(9999999999, 9999999999, 9999999999)",
            "(-1, 2)",
            "2",
            "('a', 2)",
            "((((((1,),),),),),)",
        ] {
            let message = refusal(&file("<f4", shape, "False", &[]));
            assert!(message.starts_with("h is not in a readable .npy file: "), "{message}");
        }
        let nested = [b"\x93NUMPY\x02\x00", &(1_u32 << 20).to_le_bytes()[..], &vec![b'('; 1 << 20]].concat();
        assert!(refusal(&nested).ends_with("not that of a matrix or a vector of numbers"));
        let endless = [b"\x93NUMPY\x02\x00", &u32::MAX.to_le_bytes()[..], b"{"].concat();
        assert!(refusal(&endless).ends_with("its header is cut off"));
    }
}
