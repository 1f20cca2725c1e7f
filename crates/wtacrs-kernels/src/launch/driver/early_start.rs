//! Programmatic dependent launch: a kernel's blocks start while the kernel before it ends, and wait there for its results.
//!
//! GPUs of compute capability 9.0 and later do so for kernels that contain the wait. Their PTX is the text for all GPUs with two
//! changes. Each kernel begins with two instructions: it waits until all earlier kernels have ended and their writes are visible,
//! and then lets the next kernel start. And no load takes the read-only path, which is for memory that does not change while a
//! kernel is resident: here the kernel before may still write it.
//!
//! Source: PTX ISA, "Parallel Synchronization and Communication Instructions: griddepcontrol", "ld.global.nc".

/// The first version that has the instructions, and the first architecture: `sm_90`.
const VERSION: (u32, u32) = (7, 8);
pub(super) const ARCHITECTURE: u32 = 90;
const FIRST: &str = "\tgriddepcontrol.wait;\n\tgriddepcontrol.launch_dependents;\n";

/// The text of the same kernels that start early, for compute capability 9.0 and later.
pub(super) fn starting_early(ptx: &str) -> String {
    let mut text = String::with_capacity(ptx.len() + ptx.len() / 64);
    // Between an entry's head and its first instruction, behind the declarations of registers.
    let mut begins = false;
    for line in ptx.split_inclusive('\n') {
        if let Some(version) = line.strip_prefix(".version ") {
            let (major, minor) = version.trim().split_once('.').unwrap_or_default();
            let number = |digits: &str| digits.parse().unwrap_or(0);
            let (major, minor) = VERSION.max((number(major), number(minor)));
            text += &format!(".version {major}.{minor}\n");
            continue;
        }
        if line.starts_with(".target ") {
            text += &format!(".target sm_{ARCHITECTURE}\n");
            continue;
        }
        begins |= line.contains(".entry ");
        let is_head = line.starts_with(['.', '{', ')']) || line.trim_start().starts_with('.');
        if begins && !is_head {
            text += FIRST;
            begins = false;
        }
        text += &line.replace("ld.global.nc.", "ld.global.");
    }
    text
}
