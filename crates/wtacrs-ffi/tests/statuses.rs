//! Every status of the header can come back: a table of calls in C, held against the header.

mod common;

use common::{compile, crate_path, run, scratch};
use std::ffi::CStr;
use std::process::Command;
use wtacrs::wtacrs_status_string;

const PREFIX: &str = "WTACRS_STATUS_";

/// Names and numbers of the header's statuses.
fn statuses() -> Vec<(String, i32)> {
    let header = std::fs::read_to_string(crate_path("include/wtacrs.h")).expect("the header");
    let constant = |line: &str| {
        let (name, number) = line.strip_prefix("#define ")?.split_once(' ')?;
        Some((name.to_owned(), number.parse().ok()?)).filter(|_| name.starts_with(PREFIX))
    };
    header.lines().filter_map(constant).collect()
}

/// As many words as numbers, and none of them twice: so no status of the library is missing in the header.
#[test]
fn statuses_have_words_of_their_own() {
    // SAFETY: NUL-terminated, valid for ever.
    let words = |status| unsafe { CStr::from_ptr(wtacrs_status_string(status)) };
    let statuses = statuses();
    let mut all: Vec<&CStr> = statuses.iter().map(|&(_, number)| words(number)).collect();
    let unknown = words(statuses.len() as i32);
    assert_eq!(unknown, words(-1), "the numbers are 0 to {}", statuses.len() - 1);
    all.push(unknown);
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{all:?}");
    let mut numbers: Vec<i32> = statuses.iter().map(|&(_, number)| number).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..statuses.len() as i32), "{numbers:?}");
}

/// A driver that reports its version, fails to start with the code that the environment gives, and must not be asked for
/// more after that.
const DRIVER: &str = r#"
#include <stdlib.h>
int cuInit(unsigned flags) {
  const char *code = getenv("FAKE_CUDA_INIT");
  (void)flags;
  return code ? atoi(code) : 0;
}
int cuGetErrorName(int code, const char **name) { (void)code; *name = "CUDA_ERROR_UNKNOWN"; return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
#define NEVER(name) int name(void) { abort(); }
NEVER(cuDeviceGetCount) NEVER(cuDeviceGet) NEVER(cuDeviceGetName) NEVER(cuDeviceTotalMem_v2)
NEVER(cuDeviceGetAttribute) NEVER(cuDevicePrimaryCtxRetain) NEVER(cuDevicePrimaryCtxGetState) NEVER(cuCtxGetCurrent) NEVER(cuCtxSetCurrent)
NEVER(cuCtxGetDevice) NEVER(cuCtxSynchronize) NEVER(cuMemAlloc_v2) NEVER(cuMemFree_v2) NEVER(cuMemcpyHtoD_v2)
NEVER(cuMemcpyDtoH_v2) NEVER(cuModuleLoadDataEx) NEVER(cuModuleGetFunction) NEVER(cuFuncSetAttribute)
NEVER(cuLaunchKernel) NEVER(cuLaunchCooperativeKernel)
"#;

const CUDA_ERROR_NO_DEVICE: &str = "100";
const CUDA_ERROR_UNKNOWN: &str = "999";

#[test]
fn every_status_comes_back_from_some_call() {
    let folder = scratch("statuses");
    let program = compile("statuses.c", &folder);
    let driver = folder.join("driver.c");
    std::fs::write(&driver, DRIVER).expect("temporary files can be written");
    for name in ["libcuda.so", "libcuda.so.1"] {
        run(Command::new("gcc").args(["-shared", "-fPIC", "-o"]).arg(folder.join(name)).arg(&driver));
    }
    for (name, number) in statuses() {
        let code = if name == "WTACRS_STATUS_NO_DEVICE" { CUDA_ERROR_NO_DEVICE } else { CUDA_ERROR_UNKNOWN };
        let mut command = Command::new(&program);
        command.arg(&name).env("LD_LIBRARY_PATH", &folder).env("FAKE_CUDA_INIT", code);
        let output = run(&mut command);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), number.to_string(), "{name}");
    }
    let _ = std::fs::remove_dir_all(folder);
}
