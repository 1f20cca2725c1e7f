//! Layers in .npy files, which NumPy's `save` writes: one file for each matrix.

use super::source::{Format, signature};
use super::tensor::{Described, Values, read_elements, read_layer};
use super::{InputError, Layer};
use half::{bf16, f16};
use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};
use std::io::{Read, Seek, SeekFrom};

/// Bytes before the length of the header: the file's first six, and its version.
const PREAMBLE: usize = 8;
/// The longest header that is read, the longest that version 1 allows.
const LONGEST_HEADER: usize = u16::MAX as usize;
/// Digits in the header of a matrix: its type has one, so that no product of the dimensions reaches 10¹⁹ < 2⁶⁴.
const MOST_DIGITS: usize = 19;
/// A header is one dictionary with one tuple in it.
const MOST_BRACKETS: usize = 4;

/// The layer in up to three .npy files: H, dZ, and the previous norms of dZ's rows.
///
/// Types are f32, f16, f64, which is rounded to f32, and bf16 as `ml_dtypes` stores it, two raw bytes (V2). Both byte
/// orders and both memory orders are read.
///
/// # Errors
///
/// See [`InputError`].
pub fn read_npy<R: Read + Seek>(h: R, dz: R, dz_norm_prev: Option<R>) -> Result<Layer, InputError> {
    read_layer(
        describe(h, "h")?,
        describe(dz, "dz")?,
        dz_norm_prev.map(|file| describe(file, "dz_norm_prev")).transpose()?,
        read_values,
    )
}

/// A file, at the beginning of its values.
struct Unread<R> {
    file: R,
    kind: Kind,
    big_endian: bool,
}

/// The types that are read.
#[derive(Clone, Copy)]
enum Kind {
    F32,
    F16,
    F64,
    Bf16,
}

/// Reads the header, and checks that it fits the file.
fn describe<R: Read + Seek>(mut file: R, name: &str) -> Result<Described<Unread<R>>, InputError> {
    let unreadable = |reason: String| InputError::NotNpy { tensor: name.to_owned(), reason };
    match Format::of(&signature(&mut file)?) {
        None | Some(Format::Npy) => {}
        Some(other) => return Err(unreadable(format!("it is {}", other.name()))),
    }
    let file_length = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let mut first = Vec::new();
    file.by_ref().take((PREAMBLE + 4 + LONGEST_HEADER) as u64).read_to_end(&mut first)?;
    let data_start = check_header(&first, file_length).map_err(unreadable)?;
    let header = NpyHeader::from_reader(&first[..data_start]).map_err(|error| unreadable(error.to_string()))?;

    let dtype = header.dtype();
    let (kind, big_endian) = match &dtype {
        DType::Plain(plain) => (kind(plain.type_char(), plain.size_field()), plain.endianness() == Endianness::Big),
        _ => (None, false),
    };
    let kind = kind.ok_or_else(|| unsupported(name, &dtype))?;
    let shape: Vec<usize> = header.shape().iter().map(|&size| size as usize).collect();
    let found = file_length - data_start as u64;
    if header.len().checked_mul(kind.bytes()) != Some(found) {
        return Err(InputError::WrongLength { tensor: name.to_owned(), shape, found });
    }
    file.seek(SeekFrom::Start(data_start as u64))?;
    let column_major = header.order() == Order::Fortran;
    Ok(Described { name: name.to_owned(), shape, column_major, place: Unread { file, kind, big_endian } })
}

fn read_values<R: Read>(tensor: &mut Described<Unread<R>>) -> Result<Values, InputError> {
    let count = tensor.len();
    let Unread { file, kind, big_endian } = &mut tensor.place;
    let (name, big) = (&tensor.name, *big_endian);
    match kind {
        Kind::F32 => read_elements(file, name, count, |bytes| f32::from_le_bytes(ordered(bytes, big))).map(Values::F32),
        Kind::F16 => read_elements(file, name, count, |bytes| f16::from_le_bytes(ordered(bytes, big))).map(Values::F16),
        Kind::Bf16 => read_elements(file, name, count, bf16::from_le_bytes).map(Values::Bf16),
        Kind::F64 => {
            let mut rounding = Rounding::default();
            let narrow = |bytes| rounding.round(f64::from_le_bytes(ordered(bytes, big)));
            let values = read_elements(file, name, count, narrow)?;
            rounding.check(tensor)?;
            Ok(Values::F32(values))
        }
    }
}

/// What becomes of values of f64 in f32.
#[derive(Default)]
struct Rounding {
    count: usize,
    /// The first finite one that is infinite in f32, and its place among the file's values.
    beyond: Option<(usize, f64)>,
    largest: f64,
    largest_rounded: f32,
}

impl Rounding {
    fn round(&mut self, wide: f64) -> f32 {
        let narrow = wide as f32;
        if narrow.is_infinite() && wide.is_finite() {
            self.beyond.get_or_insert((self.count, wide));
        }
        self.count += 1;
        self.largest = self.largest.max(wide.abs());
        self.largest_rounded = self.largest_rounded.max(narrow.abs());
        narrow
    }

    fn check<P>(&self, tensor: &Described<P>) -> Result<(), InputError> {
        let name = || tensor.name.clone();
        if let Some((at, value)) = self.beyond {
            let place = match tensor.shape[..] {
                [rows, columns] => {
                    let (row, column) =
                        if tensor.column_major { (at % rows, at / rows) } else { (at / columns, at % columns) };
                    format!("at row {row}, column {column}")
                }
                _ => format!("for token {at}"),
            };
            return Err(InputError::BeyondF32 { tensor: name(), place, value });
        }
        if self.largest > 0.0 && self.largest_rounded == 0.0 {
            return Err(InputError::BelowF32 { tensor: name(), largest: self.largest });
        }
        Ok(())
    }
}

impl Kind {
    fn bytes(self) -> u64 {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

fn kind(type_char: TypeChar, bytes: u64) -> Option<Kind> {
    match (type_char, bytes) {
        (TypeChar::Float, 4) => Some(Kind::F32),
        (TypeChar::Float, 2) => Some(Kind::F16),
        (TypeChar::Float, 8) => Some(Kind::F64),
        (TypeChar::RawData, 2) => Some(Kind::Bf16),
        _ => None,
    }
}

/// Little-endian bytes.
fn ordered<const BYTES: usize>(mut bytes: [u8; BYTES], big_endian: bool) -> [u8; BYTES] {
    if big_endian {
        bytes.reverse();
    }
    bytes
}

fn unsupported(name: &str, dtype: &DType) -> InputError {
    let advice = match dtype {
        DType::Plain(plain)
            if matches!((plain.type_char(), plain.size_field()), (TypeChar::Int | TypeChar::Uint, 2)) =>
        {
            "; if these are the bits of bf16, save array.view('V2')"
        }
        _ if dtype.uses_pickled_array() => "; objects have no numbers to read, so save array.astype('f4')",
        _ => "",
    };
    let (tensor, expected) = (name.to_owned(), "f4, f2, f8 and V2 (bf16)");
    InputError::UnsupportedType { tensor, found: dtype.descr(), expected, advice }
}

/// Where the data begins. Refuses headers that the parser (of a Python literal) does not guard against: a length beyond
/// the file, for which it would allocate; nesting that exhausts the stack; dimensions whose product overflows.
fn check_header(first: &[u8], file_length: u64) -> Result<usize, String> {
    let (Some(preamble), Some(rest)) = (first.get(..PREAMBLE), first.get(PREAMBLE..)) else {
        return Err("it is too short".to_owned());
    };
    if !preamble.starts_with(b"\x93NUMPY") {
        return Err("it does not start as one".to_owned());
    }
    let (major, minor) = (preamble[6], preamble[7]);
    if !matches!((major, minor), (1..=3, 0)) {
        return Err(format!("its format has version {major}.{minor}: 1.0, 2.0 and 3.0 can be read"));
    }
    let length_bytes = if major == 1 { 2 } else { 4 };
    let Some(length) = rest.get(..length_bytes) else {
        return Err("it is too short".to_owned());
    };
    let length = length.iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte));
    let start = PREAMBLE + length_bytes;
    if (length as u64) > file_length.saturating_sub(start as u64) {
        return Err("its header is cut off".to_owned());
    }
    let unusual = || "its header is not that of a matrix or a vector of numbers".to_owned();
    let header = first.get(start..start + length).ok_or_else(unusual)?;

    let count = |wanted: fn(&u8) -> bool| header.iter().filter(|byte| wanted(byte)).count();
    let nested = count(|byte| b"([{".contains(byte)) > MOST_BRACKETS;
    let hexadecimal = header.windows(2).any(|pair| pair.eq_ignore_ascii_case(b"0x"));
    if nested || hexadecimal || count(u8::is_ascii_digit) > MOST_DIGITS {
        return Err(unusual());
    }
    Ok(start + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Matrix;
    use std::io::Cursor;

    fn file(descr: &str, shape: &str, fortran: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    fn ones(shape: &str, count: usize) -> Vec<u8> {
        file("<f4", shape, "False", &1_f32.to_le_bytes().repeat(count))
    }

    fn read(h: &[u8], dz: &[u8], norms: Option<&[u8]>) -> Result<Layer, InputError> {
        read_npy(Cursor::new(h), Cursor::new(dz), norms.map(Cursor::new))
    }

    fn refusal(h: &[u8]) -> String {
        read(h, &ones("(2, 1)", 2), None).expect_err("must be refused").to_string()
    }

    #[test]
    fn every_type_and_order() {
        let values = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0];
        let by_rows = ndarray::array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
        let values_of = |descr: &str, fortran: &str, data: Vec<u8>| {
            let norms = ones("(2,)", 2);
            let layer = read(&file(descr, "(2, 3)", fortran, &data), &ones("(2, 1)", 2), Some(&norms));
            let layer = layer.expect("a valid layer");
            assert_eq!(layer.dz_norm_prev, Some(vec![1.0; 2]));
            match layer.h {
                Matrix::F32(h) => h,
                Matrix::F16(h) => h.mapv(f16::to_f32),
                Matrix::Bf16(h) => h.mapv(bf16::to_f32),
            }
        };
        assert_eq!(values_of("<f4", "False", values.map(f32::to_le_bytes).concat()), by_rows);
        assert_eq!(values_of(">f4", "False", values.map(f32::to_be_bytes).concat()), by_rows);
        assert_eq!(values_of("<f2", "False", values.map(|v| f16::from_f32(v).to_le_bytes()).concat()), by_rows);
        assert_eq!(values_of("<f8", "False", values.map(|v| f64::from(v).to_le_bytes()).concat()), by_rows);
        for raw in ["|V2", "<V2"] {
            assert_eq!(values_of(raw, "False", values.map(|v| bf16::from_f32(v).to_le_bytes()).concat()), by_rows);
        }
        let by_columns = values_of("<f4", "True", [1.0_f32, 4.0, 2.0, 5.0, 3.0, 6.0].map(f32::to_le_bytes).concat());
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
        let infinite = file("<f4", "(2, 1)", "False", &[1.0, f32::INFINITY].map(f32::to_le_bytes).concat());
        assert_eq!(refusal(&infinite), "h is inf at row 1, column 0: all values must be finite");
        assert_eq!(refuse("|S4", "(2, 2)"), "h is of type '|S4': f4, f2, f8 and V2 (bf16) can be read");
        assert_eq!(refuse("<U3", "(2, 2)"), "h is of type '<U3': f4, f2, f8 and V2 (bf16) can be read");
        assert_eq!(
            refuse("|O", "(2, 2)"),
            "h is of type '|O': f4, f2, f8 and V2 (bf16) can be read; objects have no numbers to read, so save \
             array.astype('f4')"
        );
        assert_eq!(
            refuse("<u2", "(2, 4)"),
            "h is of type '<u2': f4, f2, f8 and V2 (bf16) can be read; if these are the bits of bf16, save \
             array.view('V2')"
        );
    }

    #[test]
    fn values_that_f32_does_not_have() {
        let wide = |values: [f64; 4], order: &str| file("<f8", "(2, 2)", order, &values.map(f64::to_le_bytes).concat());
        let beyond = "values of f64 are rounded to f32, whose largest is 3.4e38";
        let values = [1.0, -1e300, 1.0, 1e200];
        assert_eq!(refusal(&wide(values, "False")), format!("h is -1e300 at row 0, column 1: {beyond}"));
        assert_eq!(refusal(&wide(values, "True")), format!("h is -1e300 at row 1, column 0: {beyond}"));
        assert_eq!(
            refusal(&wide([0.0, 1e-60, -2e-60, 0.0], "False")),
            "h is zero in f32, to which values of f64 are rounded: its largest value is 2e-60"
        );
        assert!(read(&wide([0.0, 1.0, 1e-60, 0.0], "False"), &ones("(2, 1)", 2), None).is_ok());
        let norms = file("<f8", "(2,)", "False", &[1.0, 1e39_f64].map(f64::to_le_bytes).concat());
        let refused = read(&ones("(2, 1)", 2), &ones("(2, 1)", 2), Some(&norms)).expect_err("must be refused");
        assert_eq!(refused.to_string(), format!("dz_norm_prev is 1e39 for token 1: {beyond}"));
    }

    #[test]
    fn other_files_and_versions() {
        assert_eq!(
            refusal(b"PK\x03\x04\x14\x00\x00\x00\x08\x00"),
            "h is not in a readable .npy file: it is a zip archive, as .npz files and PyTorch's are"
        );
        assert!(refusal(b"\x40\x00\x00\x00\x00\x00\x00\x00{\"h\"").ends_with(": it is a safetensors file"));
        assert!(refusal(b"something else").ends_with(": it does not start as one"));
        let mut later = ones("(2, 1)", 2);
        later[6] = 4;
        assert!(refusal(&later).ends_with(": its format has version 4.0: 1.0, 2.0 and 3.0 can be read"));
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
