//! Every status of the header can come back: a table of calls in C, held against the header.

mod common;

use common::{compile, crate_path, run, scratch};
use std::process::Command;

/// Names and numbers of the statuses, which stand between their type and the first function.
fn statuses() -> Vec<(String, i32)> {
    let header = std::fs::read_to_string(crate_path("include/wtacrs.h")).expect("the header");
    let behind = header.split_once("typedef int32_t wtacrs_status;").expect("the type").1;
    let block = behind.split_once("extern \"C\"").expect("the functions").0;
    let constant = |line: &str| {
        let (name, number) = line.strip_prefix("#define ")?.split_once(' ')?;
        Some((name.to_owned(), number.parse().ok()?))
    };
    block.lines().filter_map(constant).collect()
}

/// A driver that can tell its version, fails to start with the code that the environment gives, and must not be asked for
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
    let statuses = statuses();
    assert!(statuses.len() >= 20, "{statuses:?}");
    for (name, number) in statuses {
        let code = if name == "WTACRS_NO_DEVICE" { CUDA_ERROR_NO_DEVICE } else { CUDA_ERROR_UNKNOWN };
        let mut command = Command::new(&program);
        command.arg(&name).env("LD_LIBRARY_PATH", &folder).env("FAKE_CUDA_INIT", code);
        let output = run(&mut command);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), number.to_string(), "{name}");
    }
    let _ = std::fs::remove_dir_all(folder);
}
