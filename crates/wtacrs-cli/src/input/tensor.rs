//! Tensors as files describe them, their values, read in pieces, and the layer that they form.
//!
//! Everything that a header says is checked before the first value is read, and before there is memory for it.

use super::{InputError, Layer, Matrix};
use half::{bf16, f16};
use ndarray::{Array2, ShapeBuilder};
use std::io::Read;
use wtacrs_core::element::Element;

/// Bytes that are read at once, a multiple of every element's size.
const PIECE: usize = 1 << 20;

/// A tensor of a file, in any number of dimensions, and where its values are.
#[derive(Debug)]
pub(super) struct Described<P> {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) column_major: bool,
    pub(super) place: P,
}

pub(super) enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

/// Reads `count` elements from where the file is, and converts each of them on the way in.
pub(super) fn read_elements<T, const BYTES: usize>(
    file: &mut impl Read,
    name: &str,
    count: usize,
    mut element: impl FnMut([u8; BYTES]) -> T,
) -> Result<Vec<T>, InputError> {
    let mut elements = Vec::new();
    if elements.try_reserve_exact(count).is_err() {
        let bytes = (count as u64).saturating_mul(size_of::<T>() as u64);
        return Err(InputError::NotEnoughMemory { tensor: name.to_owned(), bytes });
    }
    let mut piece = vec![0; PIECE.min(count * BYTES)];
    while elements.len() < count {
        let piece = &mut piece[..PIECE.min((count - elements.len()) * BYTES)];
        file.read_exact(piece)?;
        elements.extend(piece.as_chunks().0.iter().map(|&bytes| element(bytes)));
    }
    Ok(elements)
}

impl Values {
    pub(super) fn into_f32(self) -> Vec<f32> {
        match self {
            Self::F32(values) => values,
            Self::F16(values) => values.into_iter().map(f16::to_f32).collect(),
            Self::Bf16(values) => values.into_iter().map(bf16::to_f32).collect(),
        }
    }
}

impl<P> Described<P> {
    /// How many elements it has. The reader of its header has checked that there is a file of so many.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Rows and columns.
    fn check_matrix(&self) -> Result<(usize, usize), InputError> {
        let (tensor, shape) = (self.name.clone(), self.shape.clone());
        match shape[..] {
            [rows, columns] if rows > 0 && columns > 0 => Ok((rows, columns)),
            [_, _] => Err(InputError::Empty { tensor, shape }),
            _ => Err(InputError::WrongShape { tensor, shape, expected: "tokens × features" }),
        }
    }

    /// How many norms.
    fn check_norms(&self) -> Result<usize, InputError> {
        let (tensor, shape) = (self.name.clone(), self.shape.clone());
        match shape[..] {
            [tokens] => Ok(tokens),
            _ => Err(InputError::WrongShape { tensor, shape, expected: "one norm for each token" }),
        }
    }

    fn check_tokens(&self, found: usize, expected: usize) -> Result<(), InputError> {
        let tensor = self.name.clone();
        if found == expected { Ok(()) } else { Err(InputError::TokenMismatch { tensor, found, expected }) }
    }

    /// A finite matrix of its values.
    pub(super) fn matrix(&self, values: Values) -> Result<Matrix, InputError> {
        Ok(match values {
            Values::F32(values) => Matrix::F32(self.arrange(values)?),
            Values::F16(values) => Matrix::F16(self.arrange(values)?),
            Values::Bf16(values) => Matrix::Bf16(self.arrange(values)?),
        })
    }

    fn arrange<T: Element<Accumulator = f32>>(&self, values: Vec<T>) -> Result<Array2<T>, InputError> {
        let shape = self.check_matrix()?;
        let found = size_of_val(values.as_slice()) as u64;
        let Ok(matrix) = Array2::from_shape_vec(shape.set_f(self.column_major), values) else {
            return Err(InputError::WrongLength { tensor: self.name.clone(), shape: self.shape.clone(), found });
        };
        match matrix.indexed_iter().find(|(_, value)| !value.widen().is_finite()) {
            Some(((row, column), value)) => {
                Err(InputError::NotFinite { tensor: self.name.clone(), row, column, value: value.widen() })
            }
            None if self.column_major => Ok(matrix.as_standard_layout().into_owned()),
            None => Ok(matrix),
        }
    }

    /// Its values as norms.
    pub(super) fn norms(&self, values: Values) -> Result<Vec<f32>, InputError> {
        self.check_norms()?;
        let norms = values.into_f32();
        match norms.iter().position(|norm| !(norm.is_finite() && *norm >= 0.0)) {
            Some(token) => Err(InputError::InvalidNorm { tensor: self.name.clone(), token, value: norms[token] }),
            None => Ok(norms),
        }
    }
}

/// Checks what the files say of the tensors, and that all have the same number of tokens; then reads and checks their
/// values.
pub(super) fn read_layer<P>(
    mut h: Described<P>,
    mut dz: Described<P>,
    mut norms: Option<Described<P>>,
    mut read: impl FnMut(&mut Described<P>) -> Result<Values, InputError>,
) -> Result<Layer, InputError> {
    let (tokens, _) = h.check_matrix()?;
    dz.check_tokens(dz.check_matrix()?.0, tokens)?;
    if let Some(norms) = &norms {
        norms.check_tokens(norms.check_norms()?, tokens)?;
    }
    let h_values = read(&mut h)?;
    let h = h.matrix(h_values)?;
    let dz_values = read(&mut dz)?;
    let dz = dz.matrix(dz_values)?;
    let dz_norm_prev = match &mut norms {
        Some(norms) => {
            let values = read(norms)?;
            Some(norms.norms(values)?)
        }
        None => None,
    };
    Ok(Layer { h, dz, dz_norm_prev })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn elements_in_several_pieces() {
        let count = PIECE / 2 + 3;
        let bytes: Vec<u8> = (0..count).flat_map(|at| (at as f32).to_le_bytes()).collect();
        let elements = read_elements(&mut Cursor::new(&bytes), "h", count, f32::from_le_bytes).expect("as many bytes");
        assert!(elements.len() == count && elements.iter().enumerate().all(|(at, &value)| value == at as f32));
        assert!(read_elements(&mut Cursor::new(&bytes), "h", count + 1, f32::from_le_bytes).is_err());
    }

    #[test]
    fn memory_that_is_not_there() {
        let refused = read_elements(&mut Cursor::new([]), "h", 1 << 60, f32::from_le_bytes).expect_err("too many");
        assert_eq!(refused.to_string(), "h needs 4611686018427387904 bytes of memory, more than is available");
    }
}
