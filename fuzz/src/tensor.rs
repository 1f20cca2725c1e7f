//! DLPack tensors from arbitrary numbers, with exactly the memory that a valid description says.

use crate::memory::{MOST, Memory, Place, Span};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use std::ptr::null_mut;
use wtacrs::{wtacrs_dldatatype, wtacrs_dldevice, wtacrs_dltensor};

/// A description as the fuzzer makes it up; most of it is what the call wants.
#[derive(Arbitrary, Clone, Debug)]
pub struct Wish {
    place: Place,
    layout: Layout,
    byte_offset: u64,
    fault: Fault,
}

#[derive(Arbitrary, Clone, Debug)]
enum Layout {
    Compact,
    /// The axes in another order, gaps between them, some turned around.
    Turned {
        order: u8,
        gaps: [u8; 4],
        turned: u8,
    },
    Any([i16; 4]),
    Absurd([i64; 4]),
}

#[derive(Arbitrary, Clone, Debug)]
enum Fault {
    None,
    None2,
    None3,
    Shape(u8, i64),
    Axes(i32),
    Device(i32),
    Dtype(u8, u8, u16),
    NullShape,
    NullData,
    NullTensor,
}

/// A tensor, ready for a call. What it points to lives as long as it does.
#[derive(Debug)]
pub struct Given {
    tensor: Box<wtacrs_dltensor>,
    shape: Vec<i64>,
    _strides: Vec<i64>,
    null: bool,
    /// Every element in memory, in order of indices; none if the description is not valid or not of the shape wanted.
    pub elements: Option<Vec<Span>>,
}

impl Given {
    pub fn pointer(&self) -> *const wtacrs_dltensor {
        if self.null { std::ptr::null() } else { &raw const *self.tensor }
    }

    /// Whether two indices are one element.
    pub fn has_twins(&self) -> bool {
        let mut starts: Vec<usize> = self.elements.iter().flatten().map(|(start, _)| start.addr()).collect();
        starts.sort_unstable();
        starts.windows(2).any(|pair| pair[0] == pair[1])
    }

    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// What a call may write through it.
    pub fn spans(&self) -> Vec<Span> {
        self.elements.clone().unwrap_or_default()
    }
}

impl Wish {
    /// A tensor of a shape and dtype (code, bits) as far as the wish has no fault. None if the description is valid but
    /// of more memory than there is, so that a call with it would be the caller's fault.
    pub fn given(&self, memory: &mut Memory, wanted: &[usize], dtype: (u8, u8)) -> Option<Given> {
        let mut shape: Vec<i64> = wanted.iter().map(|&size| size as i64).collect();
        if let Fault::Shape(axis, size) = self.fault {
            let axis = usize::from(axis) % shape.len();
            shape[axis] = size;
        }
        let axes = match self.fault {
            Fault::Axes(axes) if axes.unsigned_abs() as usize <= shape.len() => axes,
            Fault::Axes(_) => -1,
            _ => shape.len() as i32,
        };
        let (code, bits, lanes) = match self.fault {
            Fault::Dtype(code, bits, lanes) => (code, bits, lanes),
            _ => (dtype.0, dtype.1, 1),
        };
        let device_type = if let Fault::Device(device) = self.fault { device } else { 1 };
        let strides = self.strides(&shape);
        let element = usize::from(dtype.1) / 8;
        let numbers: Vec<(i128, i128)> = match &strides {
            Some(strides) => shape.iter().zip(strides).map(|(&n, &s)| (i128::from(n), i128::from(s))).collect(),
            None => compact(&shape).into_iter().zip(&shape).map(|(s, &n)| (i128::from(n), s)).collect(),
        };
        let count = shape.iter().try_fold(1_i128, |count, &n| count.checked_mul(i128::from(n)));
        let wanted_shape = shape.iter().zip(wanted).all(|(&found, &wanted)| found == wanted as i64);
        let right = (axes, code, bits, lanes, device_type) == (shape.len() as i32, dtype.0, dtype.1, 1, 1);
        let ends = |sign: i128| -> i128 {
            numbers.iter().map(|&(n, s)| (n - 1).max(0) * s).filter(|&reach| reach * sign > 0).sum()
        };
        let empty = shape.contains(&0);
        let (low, high) = if empty { (0, -1) } else { (ends(-1), ends(1)) };
        let bytes = (high - low + 1).saturating_mul(element as i128);
        let beyond = bytes > i128::from(i64::MAX) || count.is_none_or(|count| count > i128::from(i64::MAX));
        let mut elements = None;
        let mut data = null_mut();
        if !beyond && bytes > MOST as i128 && right {
            return None;
        }
        if beyond || shape.iter().any(|&n| n < 0) || !right || bytes > MOST as i128 {
            // Refused before any element is looked at.
            data = memory.place(self.place, 64, element);
        } else {
            let lowest = memory.place(self.place, bytes as usize, element);
            let aligned = lowest.addr().is_multiple_of(element);
            let first = lowest.wrapping_offset((-low * element as i128) as isize);
            // If that is beyond NULL, adding it again overflows, which must be refused.
            data = if lowest.is_null() { data } else { first.wrapping_sub(self.byte_offset as usize) };
            let reachable = data.addr().checked_add(self.byte_offset as usize).is_some();
            if (empty || (!lowest.is_null() && aligned)) && reachable && wanted_shape {
                elements = Some(
                    every(&numbers)
                        .into_iter()
                        .map(|at| (first.wrapping_offset(at * element as isize), element))
                        .collect(),
                );
            }
        }
        let null = matches!(self.fault, Fault::NullTensor);
        if matches!(self.fault, Fault::NullData) {
            if empty {
                // Nothing is wrong with that.
                return None;
            }
            data = null_mut();
        }
        if null || matches!(self.fault, Fault::NullShape) || matches!(self.fault, Fault::NullData) {
            elements = None;
        }
        let mut given =
            Given { tensor: Box::new(NOTHING), shape, _strides: strides.unwrap_or_default(), null, elements };
        *given.tensor = wtacrs_dltensor {
            data: data.cast(),
            device: wtacrs_dldevice { device_type, device_id: 0 },
            ndim: axes,
            dtype: wtacrs_dldatatype { code, bits, lanes },
            shape: if matches!(self.fault, Fault::NullShape) { null_mut() } else { given.shape.as_mut_ptr() },
            strides: if given._strides.is_empty() { null_mut() } else { given._strides.as_mut_ptr() },
            byte_offset: if data.is_null() { 0 } else { self.byte_offset },
        };
        Some(given)
    }

    fn strides(&self, shape: &[i64]) -> Option<Vec<i64>> {
        match &self.layout {
            Layout::Compact => None,
            Layout::Any(strides) => Some(strides[..shape.len()].iter().map(|&stride| i64::from(stride % 64)).collect()),
            Layout::Absurd(strides) => Some(strides[..shape.len()].to_vec()),
            Layout::Turned { order, gaps, turned } => {
                let mut axes: Vec<usize> = (0..shape.len()).collect();
                axes.rotate_left(usize::from(*order) % shape.len());
                if order & 64 != 0 {
                    axes.reverse();
                }
                let mut strides = vec![0; shape.len()];
                let mut stride = 1_i64;
                for axis in axes {
                    strides[axis] = if turned >> axis & 1 == 1 { -stride } else { stride };
                    stride = stride.wrapping_mul(shape[axis].clamp(1, 64)) + i64::from(gaps[axis] % 3);
                }
                Some(strides)
            }
        }
    }
}

const NOTHING: wtacrs_dltensor = wtacrs_dltensor {
    data: null_mut(),
    device: wtacrs_dldevice { device_type: 0, device_id: 0 },
    ndim: 0,
    dtype: wtacrs_dldatatype { code: 0, bits: 0, lanes: 0 },
    shape: null_mut(),
    strides: null_mut(),
    byte_offset: 0,
};

fn compact(shape: &[i64]) -> Vec<i128> {
    let mut stride = 1_i128;
    let mut strides: Vec<i128> = vec![];
    for &size in shape.iter().rev() {
        strides.push(stride);
        stride = stride.saturating_mul(i128::from(size.max(1)));
    }
    strides.reverse();
    strides
}

/// Offsets of all elements, the last axis quickest.
fn every(axes: &[(i128, i128)]) -> Vec<isize> {
    let mut offsets = vec![0_i128];
    for &(count, stride) in axes {
        offsets = offsets.iter().flat_map(|&at| (0..count).map(move |i| at + i * stride)).collect();
    }
    offsets.into_iter().map(|at| at as isize).collect()
}
