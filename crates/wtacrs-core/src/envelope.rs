//! The saved form of guesses and planners: a magic word, a version, a body, a CRC-32. Little-endian.

/// Saved bytes that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EnvelopeError {
    /// Another version of the format.
    Version { expected: u32, found: u32 },
    /// Bytes that were changed since they were saved, or that were never saved.
    Corrupted { what: &'static str },
}

/// Begins an envelope; the body is added to it.
pub(crate) fn begin(magic: &[u8; MAGIC], version: u32, capacity: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(capacity);
    bytes.extend(magic);
    bytes.extend(version.to_le_bytes());
    bytes
}

/// Closes an envelope.
pub(crate) fn close(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// Bytes of an envelope beside its body.
pub(crate) const FRAME: usize = MAGIC + size_of::<u32>() + CHECKSUM;
const MAGIC: usize = 8;
const CHECKSUM: usize = size_of::<u32>();

/// Opens an envelope and returns its body, whose checksum is right.
pub(crate) fn open<'a>(bytes: &'a [u8], magic: &[u8; MAGIC], expected: u32) -> Result<Reader<'a>, EnvelopeError> {
    let mut reader = Reader { bytes };
    if &reader.array::<MAGIC>()? != magic {
        return Err(EnvelopeError::Corrupted { what: "it does not begin as one" });
    }
    let found = u32::from_le_bytes(reader.array()?);
    if found != expected {
        return Err(EnvelopeError::Version { expected, found });
    }
    let Some((body, sum)) = bytes.split_last_chunk::<CHECKSUM>().filter(|_| reader.bytes.len() >= CHECKSUM) else {
        return Err(EnvelopeError::Corrupted { what: "it ends early" });
    };
    if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
        return Err(EnvelopeError::Corrupted { what: "the checksum differs" });
    }
    reader.bytes = &reader.bytes[..reader.bytes.len() - CHECKSUM];
    Ok(reader)
}

/// What is left of a body.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    /// How many bytes are left.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], EnvelopeError> {
        let (head, rest) = self.bytes.split_first_chunk().ok_or(EnvelopeError::Corrupted { what: "it ends early" })?;
        self.bytes = rest;
        Ok(*head)
    }

    pub(crate) fn word(&mut self) -> Result<u64, EnvelopeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A size, small enough that no product of two overflows.
    pub(crate) fn size(&mut self) -> Result<usize, EnvelopeError> {
        u32::try_from(self.word()?)
            .map(|size| size as usize)
            .map_err(|_| EnvelopeError::Corrupted { what: "a size is absurd" })
    }

    pub(crate) fn number(&mut self) -> Result<f64, EnvelopeError> {
        self.array().map(f64::from_le_bytes)
    }

    pub(crate) fn numbers(&mut self, count: usize) -> Result<Vec<f64>, EnvelopeError> {
        (0..count).map(|_| self.number()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bit_or_pair_of_bits_changes_unnoticed() {
        let mut sealed = begin(b"wtacrs??", 7, 0);
        sealed.extend((0..10_u64).flat_map(|word| (word * word).to_le_bytes()));
        let sealed = close(sealed);
        assert_eq!(open(&sealed, b"wtacrs??", 7).expect("as sealed").len(), sealed.len() - FRAME);
        let bits = 8 * sealed.len();
        for first in 0..bits {
            for second in first..bits {
                let mut changed = sealed.clone();
                changed[first / 8] ^= 1 << (first % 8);
                if second > first {
                    changed[second / 8] ^= 1 << (second % 8);
                }
                assert!(open(&changed, b"wtacrs??", 7).is_err(), "bits {first} and {second}");
            }
        }
    }
}
