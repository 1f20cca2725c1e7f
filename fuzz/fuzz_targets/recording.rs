//! Arbitrary bytes as recorded steps: checked steps or an error in one line, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io::Cursor;
use wtacrs_cli::input::{Recording, RecordingKeys};

fuzz_target!(|bytes: &[u8]| {
    match Recording::open(Cursor::new(bytes), &RecordingKeys::default()) {
        Ok(mut recording) => {
            for step in 0..recording.steps().min(8) {
                if let Err(error) = recording.read_step(step) {
                    assert!(!error.to_string().contains('\n'));
                }
            }
        }
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
});
