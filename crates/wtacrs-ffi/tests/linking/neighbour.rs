//! Another Rust library in a program that links libwtacrs statically: `.ci/installed-clients` builds it.

use std::panic::catch_unwind;

/// Whether a panic unwinds to the one who catches it.
#[unsafe(no_mangle)]
pub extern "C" fn neighbour_catches_its_panic() -> bool {
    catch_unwind(|| panic!("on purpose")).is_err()
}
