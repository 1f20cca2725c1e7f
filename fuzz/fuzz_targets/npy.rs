//! Arbitrary bytes as .npy files of H, dZ and previous norms: a checked layer or an error in one line, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io::Cursor;
use wtacrs_cli::input::read_npy;

fuzz_target!(|files: (&[u8], &[u8], Option<&[u8]>)| {
    let (h, dz, norms) = files;
    // The same file for H and dZ, too: arbitrary files rarely have equal shapes.
    for dz in [dz, h] {
        match read_npy(Cursor::new(h), Cursor::new(dz), norms.map(Cursor::new)) {
            Ok(layer) => assert_eq!(layer.h.dim().0, layer.dz.dim().0),
            Err(error) => assert!(!error.to_string().contains('\n')),
        }
    }
});
