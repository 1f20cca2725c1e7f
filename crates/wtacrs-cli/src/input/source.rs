//! Where bytes come from: files, pipes and standard input, and what format they begin like.
//!
//! Readers seek. A pipe cannot, so what reads a file once may have it from memory ([`open`]); what reads a recording
//! step by step refuses it ([`open_seekable`]).

use std::fs::{self, File, Metadata};
use std::io::{self, Cursor, Read, Seek};
use std::path::{Path, PathBuf};

/// What names standard input on the command line.
const STANDARD_INPUT: &str = "-";
/// As many bytes as tell the formats apart.
const SIGNATURE: usize = 9;
/// Longer headers of safetensors files are refused. At a hundred bytes for each tensor, this allows over a hundred
/// thousand.
pub(super) const LONGEST_HEADER: u64 = 1 << 24;

/// Bytes that are read at any place.
pub trait Bytes: Read + Seek + Send {}
impl<R: Read + Seek + Send> Bytes for R {}

/// Why a file is refused before anything is read of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A file that cannot be opened or read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A pipe where bytes are read out of their order.
    #[error("{} is a pipe: steps are read at their places in a file, so save it as a file first", path.display())]
    Pipe {
        /// The pipe.
        path: PathBuf,
    },
    /// Standard input where bytes are read out of their order.
    #[error("- stands for standard input: steps are read at their places in a file, so save it as a file first")]
    StandardInput,
}

/// Formats of files that are told apart by their first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// NumPy's array.
    Npy,
    /// Several of them, or a file of PyTorch's.
    Zip,
    /// HDF5.
    Hdf5,
    /// Named tensors behind a header in JSON.
    Safetensors,
}

/// A file; standard input ("-") or a pipe as a whole in memory.
///
/// # Errors
///
/// [`SourceError::Read`].
pub fn open(path: &Path) -> Result<Box<dyn Bytes>, SourceError> {
    let opened = || -> io::Result<Box<dyn Bytes>> {
        if is_standard_input(path) {
            return whole(io::stdin().lock());
        }
        let file = File::open(path)?;
        if is_pipe(&file.metadata()?) { whole(file) } else { Ok(Box::new(file)) }
    };
    opened().map_err(|source| SourceError::Read { path: path.to_owned(), source })
}

/// A file.
///
/// # Errors
///
/// [`SourceError`], also for a pipe and for standard input.
pub fn open_seekable(path: &Path) -> Result<Box<dyn Bytes>, SourceError> {
    if is_standard_input(path) {
        return Err(SourceError::StandardInput);
    }
    let read = |source| SourceError::Read { path: path.to_owned(), source };
    // Before it is opened: that would wait for the pipe's other end.
    if is_pipe(&fs::metadata(path).map_err(read)?) {
        return Err(SourceError::Pipe { path: path.to_owned() });
    }
    Ok(Box::new(File::open(path).map_err(read)?))
}

/// Whether a path stands for standard input.
pub(super) fn is_standard_input(path: &Path) -> bool {
    path == Path::new(STANDARD_INPUT)
}

fn whole(mut pipe: impl Read) -> io::Result<Box<dyn Bytes>> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes)?;
    Ok(Box::new(Cursor::new(bytes)))
}

#[cfg(unix)]
fn is_pipe(metadata: &Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_fifo() || metadata.file_type().is_socket()
}

#[cfg(not(unix))]
fn is_pipe(_: &Metadata) -> bool {
    false
}

impl Format {
    /// That of a file with these first bytes, if it is a known one.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"\x93NUMPY") {
            Some(Self::Npy)
        } else if bytes.starts_with(b"PK\x03\x04") {
            Some(Self::Zip)
        } else if bytes.starts_with(b"\x89HDF\r\n\x1a\n") {
            Some(Self::Hdf5)
        } else {
            let (length, rest) = bytes.split_first_chunk()?;
            (u64::from_le_bytes(*length) <= LONGEST_HEADER && rest.starts_with(b"{")).then_some(Self::Safetensors)
        }
    }

    /// With its article, as messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Npy => "a .npy file",
            Self::Zip => "a zip archive, as .npz files and PyTorch's are",
            Self::Hdf5 => "an HDF5 file",
            Self::Safetensors => "a safetensors file",
        }
    }
}

/// The first bytes of a file, as many as [`Format::of`] looks at; the file is back at its beginning then.
pub(super) fn signature(file: &mut (impl Read + Seek)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(SIGNATURE);
    file.rewind()?;
    file.by_ref().take(SIGNATURE as u64).read_to_end(&mut bytes)?;
    file.rewind()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_by_their_first_bytes() {
        assert_eq!(Format::of(b"\x93NUMPY\x01\x00v"), Some(Format::Npy));
        assert_eq!(Format::of(b"PK\x03\x04\x14\x00\x00\x00\x08"), Some(Format::Zip));
        assert_eq!(Format::of(b"\x89HDF\r\n\x1a\n\x00"), Some(Format::Hdf5));
        assert_eq!(Format::of(b"\x40\x00\x00\x00\x00\x00\x00\x00{"), Some(Format::Safetensors));
        for other in [b"".as_slice(), b"{}", b"\xff\xff\xff\xff\xff\xff\xff\xff{", b"\x40\x00\x00\x00\x00\x00\x00\x00["]
        {
            assert_eq!(Format::of(other), None);
        }
        let mut file = Cursor::new(b"0123456789abc");
        assert_eq!((signature(&mut file).expect("bytes").as_slice(), file.position()), (b"012345678".as_slice(), 0));
    }
}
