//! What an operator saves in a caller's memory, which lives from a forward to its backward pass: a header, then the words that
//! core's operator lays out.
//!
//! Nothing is saved, and there is no header, where the backward pass needs neither words nor random bits.

use super::header::{self, Header};
use crate::arguments::Dtype;
use crate::boundary::status::{WTACRS_STATUS_SHAPE_MISMATCH, WTACRS_STATUS_SIZE_OVERFLOW};
use crate::boundary::{Failure, Outcome};
use crate::device::OperatorDescription;
use core::{fmt, slice};
use wtacrs_core::Randomness;
use wtacrs_core::operators::{Operation, Operator};
use wtacrs_core::product::Packing;

const MAGIC: u64 = u64::from_le_bytes(*b"wtacrsOP");
const VERSION: u16 = 1;

/// A block of one operator, shape and dtype.
#[derive(Clone, Copy, Debug)]
pub(super) struct OperatorBlock {
    operator: Operator,
    shape: [usize; 2],
    dtype: Dtype,
    words: usize,
    /// 0, or those of the header and the words.
    bytes: usize,
}

impl OperatorBlock {
    /// # Errors
    ///
    /// SIZE_OVERFLOW.
    pub(super) fn new(description: &OperatorDescription) -> Outcome<Self> {
        let &OperatorDescription { operator, shape, dtype, .. } = description;
        let [rows, columns] = shape;
        // Of one row first: all rows may be too many to count.
        let of_row = operator.layout([1, columns]).words();
        let overflow =
            || Failure::new(WTACRS_STATUS_SIZE_OVERFLOW, format!("what is saved of {rows} rows cannot be addressed"));
        let bytes = rows.checked_mul(of_row).and_then(|words| words.checked_mul(4)?.checked_add(header::BYTES));
        let bytes = bytes.filter(|&bytes| isize::try_from(bytes).is_ok()).ok_or_else(overflow)?;
        let words = rows * of_row;
        let bytes = if words == 0 && description.draws() == 0 { 0 } else { bytes };
        Ok(Self { operator, shape, dtype, words, bytes })
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The words, to be written before [`Self::seal`].
    ///
    /// # Safety
    ///
    /// `block` must be aligned to 64 bytes, and [`Self::bytes`] of it writable and used by nobody else as long as the words live.
    pub(super) unsafe fn words_mut<'a>(&self, block: *mut u8) -> &'a mut [u32] {
        if self.words == 0 {
            return &mut [];
        }
        // SAFETY: they lie behind the header within `bytes`, aligned as the block is; any bits are words; the caller has the rest.
        unsafe { slice::from_raw_parts_mut(block.add(header::BYTES).cast(), self.words) }
    }

    /// Writes the header, if there is one.
    ///
    /// # Safety
    ///
    /// As for [`Self::words_mut`].
    pub(super) unsafe fn seal(&self, block: *mut u8, randomness: Randomness) {
        if self.bytes > 0 {
            // SAFETY: the header is the block's first 64 bytes, aligned.
            unsafe { block.cast::<Header>().write(self.header(randomness)) };
        }
    }

    /// The forward pass's randomness, and the words.
    ///
    /// # Errors
    ///
    /// CORRUPTED if no operator's forward pass has written it, VERSION_MISMATCH, SHAPE_MISMATCH if another operator's has.
    ///
    /// # Safety
    ///
    /// `block` must be aligned to 64 bytes, and [`Self::bytes`] of it readable and written by nobody as long as the words live.
    pub(super) unsafe fn read<'a>(&self, block: *const u8) -> Outcome<(Randomness, &'a [u32])> {
        if self.bytes == 0 {
            return Ok((UNUSED, &[]));
        }
        // SAFETY: the caller has it.
        let header = unsafe { header::read(block, MAGIC, VERSION) }?;
        let [_, kinds, rows, columns, settings, seed, offset, _] = header;
        let randomness = Randomness::new(seed, offset);
        if header != self.header(randomness) {
            let found = Found { kinds, rows, columns, settings };
            let [_, kinds, rows, columns, settings, ..] = self.header(randomness);
            let expected = Found { kinds, rows, columns, settings };
            let message = format!("the saved memory is another operator's: {found}; expected {expected}");
            return Err(Failure::new(WTACRS_STATUS_SHAPE_MISMATCH, message));
        }
        if self.words == 0 {
            return Ok((randomness, &[]));
        }
        // SAFETY: as in `words_mut`.
        Ok((randomness, unsafe { slice::from_raw_parts(block.add(header::BYTES).cast(), self.words) }))
    }

    /// Behind mark and version: dtype, packing, operation, gated; rows; columns; dropout's threshold and a norm's ε; seed; offset.
    fn header(&self, randomness: Randomness) -> Header {
        let operator = &self.operator;
        let kinds = u64::from(VERSION)
            | (self.dtype as u64) << 16
            | (operator.packing() as u64) << 24
            | (operator.operation() as u64) << 32
            | u64::from(operator.is_gated()) << 40;
        let epsilon = if operator.operation().is_norm() { operator.epsilon().to_bits() } else { 0 };
        let settings = u64::from(operator.mask().threshold) | u64::from(epsilon) << 32;
        let [rows, columns] = self.shape.map(|size| size as u64);
        let Randomness { seed, offset, .. } = randomness;
        header::sealed([MAGIC, kinds, rows, columns, settings, seed, offset])
    }
}

/// The randomness of a pass that draws nothing, so that equal calls leave equal bytes.
pub(super) const UNUSED: Randomness = Randomness::new(0, 0);

/// What must be equal of a block and of the plan that reads it.
struct Found {
    kinds: u64,
    rows: u64,
    columns: u64,
    settings: u64,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &Self { kinds, rows, columns, settings } = self;
        let byte = |at: u32| (kinds >> at & 0xff) as usize;
        f.write_str(if byte(40) == 0 { "" } else { "gated " })?;
        match Operation::ALL.get(byte(32)) {
            Some(operation) => write!(f, "{operation:?} of {rows} x {columns} elements, ")?,
            None => write!(f, "an unknown operation of {rows} x {columns} elements, ")?,
        }
        match Dtype::ALL.get(byte(16)) {
            Some(dtype) => write!(f, "{dtype:?}, ")?,
            None => f.write_str("an unknown dtype, ")?,
        }
        match Packing::ALL.get(byte(24)) {
            Some(Packing::Native) => f.write_str("native")?,
            Some(packing) => write!(f, "packed in {packing} bits")?,
            None => f.write_str("an unknown packing")?,
        }
        let probability = f64::from(settings as u32) / 4_294_967_296.0;
        write!(f, ", dropout {probability:.4}, epsilon {:e}", f32::from_bits((settings >> 32) as u32))
    }
}
