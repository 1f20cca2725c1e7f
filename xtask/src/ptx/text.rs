//! Cleans rustc's PTX: what remains are the entry points in the order of their names, and what they use.
//!
//! rustc's text also contains functions that no entry calls (the panic handler, `Debug` of arguments), names with crate
//! hashes, labels numbered by function, and comments. Without them, equal sources give equal text in any folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A cleaned module.
#[derive(Debug, Default)]
pub(super) struct Module {
    pub(super) text: String,
    pub(super) entries: Vec<Entry>,
    pub(super) problems: Vec<Problem>,
}

/// A kernel of the module.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Number of barrier instructions.
    pub(super) barriers: u32,
}

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// A kernel calls a function that was not inlined, or that no compiled crate defines.
    Call { kernel: String, function: String, defined: bool },
    /// A kernel has an array in local memory.
    Local { kernel: String },
    /// ptxas may fuse this operation with another. It then rounds otherwise than on the CPU.
    Fusible { kernel: String, instruction: String },
    /// An operation on floats does not round as IEEE 754 demands, as the CPU does.
    Approximate { kernel: String, instruction: String },
    /// An instruction that lanes execute together does not occur as often as the kernel's source says.
    Copied { kernel: String, instruction: String, count: usize, expected: usize },
    /// The text has no kernel.
    NoEntry,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { kernel, function, .. } if function.contains("panic") => {
                write!(f, "{kernel} can panic: it calls {function}; use unchecked accesses and guarded divisions")
            }
            Self::Call { kernel, function, defined: true } => {
                write!(f, "{kernel} calls {function}, which was not inlined: mark it #[inline(always)]")
            }
            Self::Call { kernel, function, defined: false } => {
                write!(f, "{kernel} calls {function}, which is unresolved: mark it #[inline]")
            }
            Self::Local { kernel } => {
                write!(f, "{kernel} has an array in local memory: index it by constants, or pass no reference to it")
            }
            Self::Fusible { kernel, instruction } => {
                write!(f, "{kernel} has {instruction}, which ptxas may fuse and round otherwise than the CPU")
            }
            Self::Approximate { kernel, instruction } => {
                write!(f, "{kernel} has {instruction}, which rounds otherwise than the CPU")
            }
            Self::Copied { kernel, instruction, count, expected } => {
                write!(
                    f,
                    "{kernel} has {instruction} {count} times, and its source {expected} times: an optimisation has copied or \
                     dropped what lanes execute together, or the source has changed and this count with it"
                )
            }
            Self::NoEntry => write!(f, "there are no kernels"),
        }
    }
}

/// Something at the top level of a text: a function, a declaration, a variable, a directive.
struct Item<'a> {
    /// None for a directive.
    name: Option<&'a str>,
    kind: Kind,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directive,
    Entry,
    Function,
    /// The declaration of a function that another module defines.
    Declaration,
    Variable,
}

/// Cleans a text, and finds what is wrong with it.
pub(super) fn clean(raw: &str) -> Module {
    let items = items(raw);
    let named: BTreeMap<&str, &Item<'_>> = items.iter().filter_map(|item| Some((item.name?, item))).collect();
    let mut module = Module::default();
    let mut used = Vec::new();
    let entries: BTreeMap<&str, &Item<'_>> =
        named.iter().filter(|(_, item)| item.kind == Kind::Entry).map(|(&name, &item)| (name, item)).collect();
    for (&name, &item) in &entries {
        let mut reached = BTreeSet::new();
        reach(item, &named, &mut reached, &mut used);
        for &symbol in &reached {
            let kind = named[symbol].kind;
            if matches!(kind, Kind::Function | Kind::Declaration) {
                let function = format!("{:#}", rustc_demangle::demangle(symbol));
                let defined = kind == Kind::Function;
                module.problems.push(Problem::Call { kernel: name.into(), function, defined });
            }
        }
        module.problems.extend(problems(name, &item.text));
        let barriers = item.text.lines().filter(|line| is_barrier(line)).count() as u32;
        module.entries.push(Entry { name: name.into(), barriers });
    }
    if entries.is_empty() {
        module.problems.push(Problem::NoEntry);
    }

    let directives = items.iter().filter(|item| item.kind == Kind::Directive);
    let others = used.iter().map(|&name| named[name]);
    let text: Vec<String> =
        directives.chain(others).chain(entries.values().copied()).map(|item| item.text.clone()).collect();
    // Names that other modules see stay. Other names become numbers.
    let renamed: BTreeMap<&str, String> = used
        .iter()
        .filter(|name| named[**name].kind != Kind::Declaration && !named[**name].text.starts_with(".extern"))
        .enumerate()
        .map(|(i, &name)| (name, format!("item_{i}")))
        .collect();
    module.text = rename(&text.concat(), &renamed);
    module
}

/// The first kernel whose texts differ, or that only one of the texts has.
pub(super) fn first_difference(was: &str, is: &str) -> Option<String> {
    let was: BTreeMap<String, String> = entry_texts(was);
    let is: BTreeMap<String, String> = entry_texts(is);
    let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    names.into_iter().find(|name| was.get(*name) != is.get(*name)).cloned()
}

fn entry_texts(text: &str) -> BTreeMap<String, String> {
    let entries = items(text).into_iter().filter(|item| item.kind == Kind::Entry);
    entries.filter_map(|item| Some((item.name?.to_owned(), item.text))).collect()
}

/// Collects the symbols that an item refers to, directly or indirectly. `order` contains each symbol of the module once.
fn reach<'a>(
    item: &Item<'_>,
    named: &BTreeMap<&'a str, &Item<'a>>,
    reached: &mut BTreeSet<&'a str>,
    order: &mut Vec<&'a str>,
) {
    for word in words(&item.text) {
        let Some((&name, &other)) = named.get_key_value(word) else { continue };
        if Some(name) != item.name && other.kind != Kind::Entry && reached.insert(name) {
            reach(other, named, reached, order);
            if !order.contains(&name) {
                order.push(name);
            }
        }
    }
}

fn problems(kernel: &str, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    if text.contains("__local_depot") {
        problems.push(Problem::Local { kernel: kernel.into() });
    }
    let fusible = ["mul.f32", "add.f32", "sub.f32", "mul.f64", "add.f64", "sub.f64"];
    if let Some(instruction) = text.split_whitespace().find(|opcode| fusible.contains(opcode)) {
        problems.push(Problem::Fusible { kernel: kernel.into(), instruction: instruction.into() });
    }
    if let Some(instruction) = text.split_whitespace().find(|opcode| is_approximate(opcode)) {
        problems.push(Problem::Approximate { kernel: kernel.into(), instruction: instruction.into() });
    }
    problems.extend(copied(kernel, text));
    problems
}

/// Whether an instruction treats subnormal numbers as zeros, or may be wrong in the last bits.
fn is_approximate(opcode: &str) -> bool {
    opcode.split('.').skip(1).any(|part| matches!(part, "ftz" | "approx" | "full"))
}

/// The kernel that contains each of [`TOGETHER`] once, between branches on a condition that differs between lanes.
const BETWEEN_BRANCHES: &str = "check_between_branches";

/// Instructions that lanes execute together.
const TOGETHER: &[&str] = &[
    "bar.sync",
    "bar.warp.sync",
    "shfl.sync",
    "vote.sync",
    "redux.sync",
    "ldmatrix.sync",
    "mma.sync.aligned.m16n8k16.row.col.f32.f16",
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16",
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32",
];

/// How often the sources of products multiply, and load fragments for it. LLVM does not know either to be convergent.
///
/// A step of 64 × 64 sums in a warp is 32 mma of 16 bits, of 8 fragments, and the text has two steps, and the loads of a third.
/// A warp of 64 × 32 sums has half as many mma and 6 fragments. Two steps of tf32 are 32 mma.
fn of_products(kernel: &str) -> Option<[(&'static str, usize); 2]> {
    let (_, product) = kernel.split_once("gather_gemm_")?;
    let (mma, ldmatrix) = match product.split_once('_').unwrap_or((product, "")) {
        ("bf16" | "f16", "wide" | "square" | "ragged") => (64, 24),
        ("bf16" | "f16", _) => (32, 18),
        ("tf32", _) => (32, 0),
        _ => (0, 0),
    };
    Some([("mma.sync", mma), ("ldmatrix.sync", ldmatrix)])
}

/// Finds instructions that lanes execute together and that the compiler has copied or dropped.
fn copied(kernel: &str, text: &str) -> Vec<Problem> {
    let once = (kernel == BETWEEN_BRANCHES).then(|| TOGETHER.iter().map(|&instruction| (instruction, 1)));
    let expected = once.into_iter().flatten().chain(of_products(kernel).into_iter().flatten());
    let count = |instruction: &str| text.split_whitespace().filter(|word| word.starts_with(instruction)).count();
    let problem = |(instruction, expected): (&str, usize)| {
        let (kernel, count) = (kernel.into(), count(instruction));
        (count != expected).then(|| Problem::Copied { kernel, instruction: instruction.into(), count, expected })
    };
    expected.filter_map(problem).collect()
}

fn is_barrier(line: &str) -> bool {
    let opcode = line.split_whitespace().find(|word| !word.starts_with('@')).unwrap_or("");
    opcode.starts_with("bar.sync") || opcode.starts_with("barrier.sync")
}

/// The items at the top level, without comments and empty lines, with labels numbered within their function.
fn items(raw: &str) -> Vec<Item<'_>> {
    let mut items = Vec::new();
    let mut lines = Vec::new();
    let mut depth = 0_i32;
    let mut most_threads = None;
    for line in raw.lines() {
        most_threads = line.trim().strip_prefix(MOST_THREADS).or(most_threads);
        let code = line.split("//").next().unwrap_or("").trim_end();
        if code.trim().is_empty() {
            continue;
        }
        lines.push(code);
        depth +=
            code.chars().map(|c| i32::from(matches!(c, '{' | '(')) - i32::from(matches!(c, '}' | ')'))).sum::<i32>();
        let directive = [".version", ".target", ".address_size"].iter().any(|name| code.starts_with(name));
        // A head `.entry name(…)` also ends at depth 0, but its body follows.
        if depth == 0 && (directive || code.ends_with(['}', ';'])) {
            items.push(item(&lines, most_threads.take()));
            lines.clear();
        }
    }
    items
}

/// The comment by which a kernel limits its block's threads: `wtacrs_simt::index::at_most`.
const MOST_THREADS: &str = "// most threads: ";
/// Any block of so many threads fits a multiprocessor: it has 65,536 registers, and a thread at most 255. For smaller
/// blocks, the assembler weighs registers against the number of blocks.
const ANY_REGISTERS: u32 = 256;

fn item<'a>(lines: &[&'a str], most_threads: Option<&str>) -> Item<'a> {
    let kind = match lines[0] {
        head if head.starts_with(".version") || head.starts_with(".target") || head.starts_with(".address") => {
            Kind::Directive
        }
        head if head.contains(".entry ") => Kind::Entry,
        head if head.contains(".func") && head.contains(".extern") => Kind::Declaration,
        head if head.contains(".func") => Kind::Function,
        _ => Kind::Variable,
    };
    let name = match kind {
        Kind::Directive => None,
        // The name is before the brackets of a variable's length or of the parameters, which follow those of the result.
        Kind::Variable => lines[0].split(['[', '=', ';']).next().and_then(|head| head.split_whitespace().last()),
        Kind::Entry => lines[0].split(".entry ").nth(1).and_then(|rest| rest.split('(').next()),
        Kind::Function | Kind::Declaration => function_name(lines),
    };
    let mut text: String = lines.iter().map(|line| format!("{}\n", local_labels(line))).collect();
    if let Some(threads) = most_threads.and_then(|threads| threads.parse::<u32>().ok())
        && kind == Kind::Entry
        && threads > ANY_REGISTERS
    {
        // After the parameters. One block on a multiprocessor is enough: to have two, ptxas would spill.
        text = text.replacen("\n)\n", &format!("\n)\n.maxntid {threads}, 1, 1\n.minnctapersm 1\n"), 1);
    }
    Item { name: name.map(str::trim), kind, text }
}

/// The name after `.func` and the result in parentheses, if there is one.
fn function_name<'a>(lines: &[&'a str]) -> Option<&'a str> {
    let head = lines[0].split(".func").nth(1)?.trim();
    let after = match head.strip_prefix('(') {
        Some(result) => result.split_once(')')?.1.trim(),
        None => head,
    };
    let name = if after.is_empty() { lines.get(1)? } else { after };
    name.split(['(', ';']).next().map(str::trim)
}

/// Shortens `$L__BB3_12` to `$L12`, since labels are local to their function.
fn local_labels(line: &str) -> String {
    let mut parts = line.split("$L__BB");
    let mut text = parts.next().unwrap_or("").to_owned();
    for part in parts {
        text.push_str("$L");
        text.push_str(part.split_once('_').map_or(part, |(_, label)| label));
    }
    text
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.')
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_word(c)).filter(|word| !word.is_empty())
}

/// Replaces whole words.
fn rename(text: &str, names: &BTreeMap<&str, String>) -> String {
    let mut renamed = String::with_capacity(text.len());
    for part in text.split_inclusive(|c| !is_word(c)) {
        let word = part.trim_end_matches(|c| !is_word(c));
        // The names of a function's parameters begin with its name.
        let base = word.split("_param_").next().unwrap_or(word);
        match names.get(base) {
            Some(name) => renamed.extend([name, &part[base.len()..]]),
            None => renamed.push_str(part),
        }
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text of rustc 1.96, shortened.
    const RAW: &str = "\
//
// Generated by LLVM NVPTX Back-End
//

.version 7.0
.target sm_80
.address_size 64


.extern .shared .align 1024 .b8 wtacrs_shared[];


	// .globl	_RNvCsfgHYwM92fyn_7___rustc17rust_begin_unwind
.extern .func _ZN4core9panicking18panic_bounds_check17h0123456789abcdefE
(
	.param .b64 _ZN4core9panicking18panic_bounds_check17h0123456789abcdefE_param_0
)
.noreturn
;
.visible .func _RNvCsfgHYwM92fyn_7___rustc17rust_begin_unwind(
	.param .b64 _RNvCsfgHYwM92fyn_7___rustc17rust_begin_unwind_param_0
)
.noreturn
{


	// begin inline asm
	trap;
	// end inline asm

}
.visible .func  (.param .b32 func_retval0) _RNvCsfgHYwM92fyn_14wtacrs_kernels4calc(
	.param .b32 _RNvCsfgHYwM92fyn_14wtacrs_kernels4calc_param_0
)
{
	ld.param.b32 	%r1, [_RNvCsfgHYwM92fyn_14wtacrs_kernels4calc_param_0];
	ret;
}
.global .align 4 .b8 anon_$_0123456789abcdef_$_0[8] = {1, 0, 0, 0, 2};
	// .globl	second
.visible .entry second(
	.param .align 8 .b8 second_param_0[24]
)
{
	.reg .b32 	%r<3>;
	mov.u32 	%r1, wtacrs_shared;
	mov.b64 	%rd1, anon_$_0123456789abcdef_$_0;
$L__BB3_1:
	// begin inline asm
	shfl.sync.bfly.b32 %r1, %r2, 1, 31, -1;
	// end inline asm
	bar.sync 	0;
	@%p1 bar.sync 0;
	@%p1 bra 	$L__BB3_1;
	ret;

}
	// .globl	first
.visible .entry first(
	.param .align 8 .b8 first_param_0[24]
)
{
	// begin inline asm
	// most threads: 512
	// end inline asm
	ld.param.b64 	%rd1, [first_param_0];
	mul.rn.f32 	%r1, %r2, %r3;
	ret;
}
";

    const CLEAN: &str = "\
.version 7.0
.target sm_80
.address_size 64
.extern .shared .align 1024 .b8 wtacrs_shared[];
.global .align 4 .b8 item_0[8] = {1, 0, 0, 0, 2};
.visible .entry first(
	.param .align 8 .b8 first_param_0[24]
)
.maxntid 512, 1, 1
.minnctapersm 1
{
	ld.param.b64 	%rd1, [first_param_0];
	mul.rn.f32 	%r1, %r2, %r3;
	ret;
}
.visible .entry second(
	.param .align 8 .b8 second_param_0[24]
)
{
	.reg .b32 	%r<3>;
	mov.u32 	%r1, wtacrs_shared;
	mov.b64 	%rd1, item_0;
$L1:
	shfl.sync.bfly.b32 %r1, %r2, 1, 31, -1;
	bar.sync 	0;
	@%p1 bar.sync 0;
	@%p1 bra 	$L1;
	ret;
}
";

    #[test]
    fn only_entries_and_what_they_use_remain() {
        let module = clean(RAW);
        assert_eq!(module.text, CLEAN);
        let entry = |name: &str, barriers| Entry { name: name.into(), barriers };
        assert_eq!(module.entries, [entry("first", 0), entry("second", 2)]);
        assert_eq!(module.problems, []);
        assert_eq!(clean(CLEAN).text, CLEAN);
    }

    /// The problems of RAW with a line of `first` replaced.
    fn problems_with(line: &str) -> Vec<String> {
        let raw = RAW.replace("mul.rn.f32 	%r1, %r2, %r3;", line);
        clean(&raw).problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_panic_names_the_kernel() {
        let problems = problems_with("call.uni _ZN4core9panicking18panic_bounds_check17h0123456789abcdefE, (param0);");
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].starts_with("first can panic: it calls core::panicking::panic_bounds_check;"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_call_that_was_not_inlined_is_a_problem() {
        let problems = problems_with("call.uni (retval0), _RNvCsfgHYwM92fyn_14wtacrs_kernels4calc, (param0);");
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].starts_with("first calls wtacrs_kernels::calc,") && problems[0].contains("not inlined"),
            "{problems:?}"
        );
    }

    #[test]
    fn local_memory_and_operations_that_round_otherwise_are_problems() {
        assert!(problems_with("mov.b64 	%SPL, __local_depot1;")[0].starts_with("first has an array in local memory"));
        assert!(problems_with("add.f32 	%r1, %r2, %r3;")[0].starts_with("first has add.f32"));
        for exact in ["add.rn.f32", "div.rn.f32", "mov.b32"] {
            assert_eq!(problems_with(&format!("{exact} \t%r1, %r2, %r3;")), Vec::<String>::new());
        }
        for approximate in ["ex2.approx.f32", "add.rn.ftz.f32", "div.full.f32", "setp.gt.ftz.f32"] {
            let problems = problems_with(&format!("{approximate} \t%r1, %r2, %r3;"));
            assert!(problems[0].starts_with(&format!("first has {approximate}, which rounds")), "{problems:?}");
        }
    }

    #[test]
    fn a_copied_collective_is_a_problem() {
        let problems = |barriers: usize| {
            let mut body: String =
                TOGETHER[1..].iter().map(|instruction| format!("\t{instruction} \t%r1;\n")).collect();
            body.push_str(&"\tbar.sync \t0;\n".repeat(barriers));
            clean(&format!(".version 7.0\n.visible .entry {BETWEEN_BRANCHES}()\n{{\n{body}}}\n")).problems
        };
        assert_eq!(problems(1), []);
        let copied =
            Problem::Copied { kernel: BETWEEN_BRANCHES.into(), instruction: "bar.sync".into(), count: 2, expected: 1 };
        assert_eq!(problems(2), [copied]);
    }

    #[test]
    fn a_copied_mma_is_a_problem() {
        let problems = |kernel: &str, mma: usize, ldmatrix: usize| {
            let lines = "\tmma.sync.aligned.m16n8k16 \t%r1;\n".repeat(mma)
                + &"\tldmatrix.sync.aligned.m8n8.x4 \t%r1;\n".repeat(ldmatrix);
            clean(&format!(".version 7.0\n.visible .entry {kernel}()\n{{\n{lines}}}\n")).problems.len()
        };
        for (kernel, mma, ldmatrix) in
            [("gather_gemm_bf16_wide", 64, 24), ("gather_gemm_f16_flat", 32, 18), ("gather_gemm_tf32", 32, 0)]
        {
            assert_eq!(problems(kernel, mma, ldmatrix), 0, "{kernel}");
            assert_eq!(problems(kernel, 2 * mma, ldmatrix), 1, "{kernel}");
            assert_eq!(problems(kernel, mma - 1, ldmatrix + 1), 2, "{kernel}");
        }
        assert_eq!(problems("gather_gemm_f32", 1, 0), 1);
        assert_eq!(problems("row_norms_f32", 1, 1), 0);
    }

    #[test]
    fn the_first_difference_is_a_kernel() {
        assert_eq!(first_difference(CLEAN, CLEAN), None);
        assert_eq!(first_difference(CLEAN, &CLEAN.replace("@%p1 bra", "@%p2 bra")).as_deref(), Some("second"));
        assert_eq!(first_difference("", CLEAN).as_deref(), Some("first"));
    }
}
