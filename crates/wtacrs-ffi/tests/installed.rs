//! The number in the installed library's SONAME is the one that the header promises.

mod common;

use common::crate_path;
use wtacrs::WTACRS_ABI_VERSION;

#[test]
fn the_soname_carries_the_headers_abi_version() {
    let install = std::fs::read_to_string(crate_path("../../xtask/src/install.rs")).expect("the installer");
    assert!(install.contains(&format!("const ABI: &str = \"{WTACRS_ABI_VERSION}\";")), "xtask installs another ABI");
}
