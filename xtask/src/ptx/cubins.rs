//! `cargo xtask cubins`: assembles the committed PTX into machine code, for builds of the library that are given away.

use super::assemble::{assemble, cubin};
use super::build;
use super::manifest::committed_text;
use super::product::ARCHITECTURES;
use crate::error::Error;
use crate::toolchain::Assembler;
use crate::{report, workspace};
use miniz_oxide::deflate::compress_to_vec_zlib;
use std::fs;

/// The kernels of the library; those of the checks are for tests.
const KERNELS: &str = "wtacrs_sm80.ptx";

/// The best compression that there is.
const LEVEL: u8 = 10;

/// Writes a cubin for each architecture, and the hash of the PTX, to where the build of wtacrs-kernels looks for them.
pub(crate) fn run() -> Result<(), Error> {
    let text = committed_text(&workspace::root().join(workspace::PTX), KERNELS)?;
    let assembler = Assembler::find()?;
    report::step("Using", format_args!("ptxas {}", assembler.version));
    let scratch = workspace::target()?.join("ptx/cubins");
    fs::create_dir_all(&scratch).map_err(Error::file(&scratch))?;
    let source = scratch.join(KERNELS);
    fs::write(&source, &text).map_err(Error::file(&source))?;
    assemble(&assembler, &source, ARCHITECTURES.iter().copied())?;

    let folder = workspace::root().join(workspace::CUBINS);
    // A build takes no cubin while the hash is not there.
    let hash = folder.join("ptx.sha256");
    for entry in fs::read_dir(&folder).map_err(Error::file(&folder))? {
        let path = entry.map_err(Error::file(&folder))?.path();
        if path == hash || path.extension().is_some_and(|extension| extension == "z") {
            fs::remove_file(&path).map_err(Error::file(&path))?;
        }
    }
    let mut bytes = 0;
    for architecture in ARCHITECTURES {
        let cubin = cubin(&source, *architecture);
        let compressed = compress_to_vec_zlib(&fs::read(&cubin).map_err(Error::file(&cubin))?, LEVEL);
        bytes += compressed.len();
        let path = folder.join(format!("sm_{architecture}.cubin.z"));
        fs::write(&path, compressed).map_err(Error::file(&path))?;
    }
    fs::write(&hash, build::sha256(text.as_bytes()) + "\n").map_err(Error::file(&hash))?;
    let count = ARCHITECTURES.len();
    report::step("Wrote", format_args!("{count} cubins, {} KiB, to {}", bytes.div_ceil(1024), folder.display()));
    Ok(())
}
