//! Arbitrary bytes as a safetensors file: a checked layer or an error in one line, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io::Cursor;
use wtacrs_cli::input::{Keys, read_safetensors};

fuzz_target!(|bytes: &[u8]| {
    match read_safetensors(Cursor::new(bytes), &Keys::default()) {
        Ok(layer) => assert_eq!(layer.h.dim().0, layer.dz.dim().0),
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
});
