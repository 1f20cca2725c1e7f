//! AddressSanitizer sees a kernel's stray access to global memory: a child process makes one and must die of it.
//!
//! RUSTFLAGS=-Zsanitizer=address cargo +nightly test -p wtacrs-simt --features sanitizer --target x86_64-unknown-linux-gnu
#![cfg(feature = "sanitizer")]

use std::process::Command;
use wtacrs_simt::emulator::{Launch, launch};
use wtacrs_simt::{index, memory, sync};

const CHILD: &str = "WTACRS_SIMT_STRAY_ACCESS";

#[test]
fn a_stray_access_is_reported() {
    if std::env::var_os(CHILD).is_some() {
        stray();
        return;
    }
    let name = "a_stray_access_is_reported";
    let executable = std::env::current_exe().expect("this test's executable");
    let child = Command::new(executable).args(["--exact", name]).env(CHILD, "1").output().expect("runs");
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(!child.status.success(), "{said}");
    assert!(said.contains("AddressSanitizer: heap-buffer-overflow"), "{said}");
}

/// Thread 63 reads one element too far.
fn stray() {
    let values: Vec<u32> = (0..63).collect();
    let place = values.as_ptr().expose_provenance();
    let shape = Launch { grid: [1, 1, 1], block: 64, shared_bytes: 0, cooperative: false, seed: 0 };
    let outcome = launch(shape, &|| {
        sync::barrier();
        let from = std::ptr::with_exposed_provenance::<u32>(place).wrapping_add(index::thread() as usize);
        // SAFETY: for 63 of 64 threads; the sanitizer ends the process at the last.
        std::hint::black_box(unsafe { memory::load(from) });
    });
    outcome.expect("nothing that the emulator sees");
}
