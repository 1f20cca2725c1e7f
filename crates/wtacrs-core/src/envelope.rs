//! What all saved bytes have in common: a magic word, a version, a body, a checksum. Little-endian.

/// Saved bytes that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EnvelopeError {
    /// Of another version of the format.
    Version { expected: u32, found: u32 },
    /// Not what was saved.
    Corrupted { what: &'static str },
}

/// Begins an envelope; the body is added to it.
pub(crate) fn begin(magic: &[u8; 8], version: u32, capacity: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(capacity);
    bytes.extend(magic);
    bytes.extend(version.to_le_bytes());
    bytes
}

/// Closes an envelope.
pub(crate) fn close(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend(checksum(&bytes).to_le_bytes());
    bytes
}

/// Opens an envelope and gives its body, whose checksum is right.
pub(crate) fn open<'a>(bytes: &'a [u8], magic: &[u8; 8], expected: u32) -> Result<Reader<'a>, EnvelopeError> {
    let mut reader = Reader { bytes };
    if &reader.array::<8>()? != magic {
        return Err(EnvelopeError::Corrupted { what: "it does not begin as one" });
    }
    let found = u32::from_le_bytes(reader.array()?);
    if found != expected {
        return Err(EnvelopeError::Version { expected, found });
    }
    let Some((body, sum)) = bytes.split_last_chunk::<8>().filter(|_| reader.bytes.len() >= 8) else {
        return Err(EnvelopeError::Corrupted { what: "it ends early" });
    };
    if checksum(body) != u64::from_le_bytes(*sum) {
        return Err(EnvelopeError::Corrupted { what: "the checksum differs" });
    }
    reader.bytes = &reader.bytes[..reader.bytes.len() - 8];
    Ok(reader)
}

/// What is left of a body.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    /// How many bytes.
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

/// FNV-1a over words of eight bytes: finds what a disk or a copy does to a file, not an adversary.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0xcbf2_9ce4_8422_2325, |sum, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0100_0000_01b3)
    })
}
