//! Every intrinsic of wtacrs-simt as rustc compiles it for a GPU. Its tests run these kernels on the emulator, and they run
//! unchanged on a GPU; here their PTX must write the same words.

use wtacrs_ptx::Module;
use wtacrs_simt::checks::{ALL, Args, Check};
use wtacrs_simt::emulator::Launch;

const PTX: &str = include_str!("../../wtacrs-kernels/ptx/checks_sm80.ptx");

/// Words aligned as a GPU's memory is.
#[derive(Clone, Copy)]
#[repr(align(16))]
struct Aligned([u32; 4]);

fn aligned(words: &[u32]) -> Vec<Aligned> {
    let word = |i: usize| words.get(i).copied().unwrap_or_default();
    (0..words.len().div_ceil(4)).map(|i| Aligned([0, 1, 2, 3].map(|j| word(4 * i + j)))).collect()
}

/// The words that a check writes; none if it fails.
fn run(module: &Module, check: &Check, seed: u64) -> Option<Vec<u32>> {
    let &Check { name, grid, block, shared_bytes, cooperative, .. } = check;
    let words = (check.input)();
    let len = (check.expected)(&words).len();
    let input = aligned(&words);
    let mut output = aligned(&vec![0; len]);
    let arguments = Args { input: input.as_ptr().cast(), output: output.as_mut_ptr().cast() };
    let shape = Launch { grid, block, shared_bytes, cooperative, seed };
    // SAFETY: input and output are as the check describes them.
    unsafe { module.launch(name, shape, &arguments) }.ok()?;
    Some(output.iter().flat_map(|words| words.0).take(len).collect())
}

#[test]
fn every_check_gives_what_a_plain_loop_says() {
    let module = Module::read(PTX).expect("every instruction is known");
    for check in ALL {
        for seed in 0..8 {
            let found = run(&module, check, seed);
            assert_eq!(found, Some((check.expected)(&(check.input)())), "{} with seed {seed}", check.name);
        }
    }
}

/// Changes of one instruction, as a wrong body of an intrinsic or an optimisation might make them, show.
#[test]
fn a_changed_instruction_shows() {
    for (kernel, from, to) in [
        ("check_barriers", "\tbar.sync \t0;\n", ""),
        ("check_shuffles", "shfl.sync.bfly", "shfl.sync.down"),
        ("check_votes", "vote.sync.ballot.b32", "redux.sync.or.b32"),
        ("check_atomics", "atom.relaxed.gpu.global.max.u32", "atom.relaxed.gpu.global.min.u32"),
        ("check_copies", "cp.async.wait_group 0", "cp.async.wait_group 1"),
        ("check_matrix_loads", "x4.trans.shared", "x4.shared"),
        ("check_mma_bf16", "f32.bf16.bf16.f32", "f32.f16.f16.f32"),
        ("check_rounding", "cvt.rn.f16.f32", "cvt.rn.bf16.f32"),
    ] {
        let start = PTX.find(&format!(".entry {kernel}(")).expect("an entry");
        let (before, text) = PTX.split_at(start);
        assert!(text.contains(from), "{kernel} has no {from}");
        let module =
            Module::read(&(before.to_owned() + &text.replacen(from, to, 1))).expect("every instruction is known");
        let check = ALL.iter().find(|check| check.name == kernel).expect("a check");
        let shown = (0..8)
            .any(|seed| run(&module, check, seed).is_none_or(|found| found != (check.expected)(&(check.input)())));
        assert!(shown, "{kernel} with {to} in place of {from}");
    }
}
