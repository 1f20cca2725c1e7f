//! Every intrinsic of wtacrs-simt on a GPU: the checks that its own tests run on the emulator.

use crate::common::Machine;
use cudarc::driver::result::{self, module};
use std::ffi::{CString, c_void};
use wtacrs_simt::checks::{ALL, Args, Check};

/// Their entry points. The library's own file does not carry them.
const PTX: &str = concat!(include_str!("../ptx/checks_sm80.ptx"), "\0");

#[test]
fn every_check_is_an_entry_point() {
    for Check { name, .. } in ALL {
        assert!(PTX.contains(&format!(".visible .entry {name}(")), "{name}: run cargo xtask ptx");
    }
}

#[test]
fn every_intrinsic_does_on_a_gpu_what_a_plain_loop_says() {
    let Some(machine) = Machine::gpu() else { return };
    // SAFETY: the text ends with a NUL, and the machine's context is current.
    let module = unsafe { module::load_data(PTX.as_ptr().cast()) }.expect("the driver loads the checks");
    for check in ALL {
        let Check { name, grid: [x, y, z], block, shared_bytes, .. } = *check;
        let words = (check.input)();
        let expected = (check.expected)(&words);
        let input = machine.upload(&words);
        let output = machine.upload(&vec![0_u32; expected.len()]);
        let mut args = Args { input: input.pointer(), output: output.pointer() };
        let parameters: &mut [*mut c_void] = &mut [(&raw mut args).cast()];
        let launch = if check.cooperative { result::launch_cooperative_kernel } else { result::launch_kernel };
        let entry = CString::new(name).expect("a name without NUL");
        // SAFETY: the module is never unloaded; input and output are as the check describes them, and outlive the
        // launch, since `download` waits for it.
        unsafe {
            let function = module::get_function(module, entry).expect("an entry point");
            launch(function, (x, y, z), (block, 1, 1), shared_bytes, std::ptr::null_mut(), parameters)
        }
        .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(machine.download(&output), expected, "{name}");
    }
}
