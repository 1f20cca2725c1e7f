//! Programmatic dependent launch: a kernel's blocks start while the kernel before it ends, and wait there for its results.
//!
//! GPUs of compute capability 9.0 and later do so for kernels that contain the wait. Their PTX is the text for all GPUs with
//! two instructions more at the beginning of each kernel: wait until all earlier kernels have ended and their writes are
//! visible; then let the next kernel start. No kernel touches global memory before it has waited, so nothing else changes.
//!
//! Source: PTX ISA, "Parallel Synchronization and Communication Instructions: griddepcontrol".

/// The head of the text: `.version` and `.target`.
const HEAD: [(&str, &str); 2] = [(".version ", "7.8"), (".target ", "sm_90")];
const FIRST: &str = "\tgriddepcontrol.wait;\n\tgriddepcontrol.launch_dependents;\n";

/// The text of the same kernels that start early, for compute capability 9.0 and later.
pub(super) fn starting_early(ptx: &str) -> String {
    let mut text = String::with_capacity(ptx.len() + ptx.len() / 64);
    // Between an entry's head and its first instruction, behind the declarations of registers.
    let mut begins = false;
    for line in ptx.split_inclusive('\n') {
        if let Some((directive, value)) = HEAD.into_iter().find(|(directive, _)| line.starts_with(directive)) {
            text.extend([directive, value, "\n"]);
            continue;
        }
        begins |= line.contains(".entry ");
        let is_head = line.starts_with(['.', '{', ')']) || line.trim_start().starts_with('.');
        if begins && !is_head {
            text.push_str(FIRST);
            begins = false;
        }
        text.push_str(line);
    }
    text
}
