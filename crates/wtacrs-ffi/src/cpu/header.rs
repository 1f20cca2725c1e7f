//! How saved memory begins: with what is in it and what has made it, so that no pass reads what another one has saved.

use crate::boundary::status::{WTACRS_STATUS_CORRUPTED, WTACRS_STATUS_VERSION_MISMATCH};
use crate::boundary::{Failure, Outcome};

/// Bytes of a header.
pub(super) const BYTES: usize = size_of::<Header>();

/// A mark of what kind of memory it is; a word whose lower 16 bits are the version of its layout; five words of the kind's own;
/// a checksum.
pub(super) type Header = [u64; 8];

/// A header of these words.
pub(super) fn sealed(words: [u64; 7]) -> Header {
    let [magic, kinds, a, b, c, seed, offset] = words;
    [magic, kinds, a, b, c, seed, offset, checksum(&words)]
}

/// The header of a block with this mark and version.
///
/// # Errors
///
/// CORRUPTED if no forward pass has written it, VERSION_MISMATCH.
///
/// # Safety
///
/// `block` must be aligned to 8 bytes, and [`BYTES`] of it readable and written by nobody.
pub(super) unsafe fn read(block: *const u8, magic: u64, version: u16) -> Outcome<Header> {
    // SAFETY: the caller has it; any bytes are words.
    let header = unsafe { block.cast::<Header>().read() };
    let [words @ .., sum] = header;
    if words[0] != magic {
        return Err(corrupted("was not written by a forward pass of this kind"));
    }
    if words[1] as u16 != version {
        let message = format!("the saved memory is of version {}, not {version}", words[1] as u16);
        return Err(Failure::new(WTACRS_STATUS_VERSION_MISMATCH, message));
    }
    if sum != checksum(&words) {
        return Err(corrupted("has been changed"));
    }
    Ok(header)
}

/// A failure of what is in saved memory.
pub(super) fn corrupted(what: &str) -> Failure {
    Failure::new(WTACRS_STATUS_CORRUPTED, format!("the saved memory {what}"))
}

/// FNV-1a.
fn checksum(words: &[u64; 7]) -> u64 {
    words.iter().fold(0xcbf2_9ce4_8422_2325, |sum, word| (sum ^ word).wrapping_mul(0x0100_0000_01b3))
}
