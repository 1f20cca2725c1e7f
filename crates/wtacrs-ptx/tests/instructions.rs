//! Single instructions against what the PTX ISA says of them, where that is not what a Rust operator does, and texts that
//! must be refused.

use wtacrs_ptx::{LaunchError, Module, Reason};
use wtacrs_simt::emulator::Launch;

/// A kernel with three numbers in %rd1 to %rd3 that stores %rd9, each thread in a place of its own.
fn text(body: &str) -> String {
    format!(
        ".visible .entry kernel(\n.param .align 8 .b8 kernel_param_0[16]\n)\n{{\n\
         ld.param.b64 %rd20, [kernel_param_0];\nld.param.b64 %rd21, [kernel_param_0+8];\n\
         ld.global.b64 %rd1, [%rd20];\nld.global.b64 %rd2, [%rd20+8];\nld.global.b64 %rd3, [%rd20+16];\n\
         cvt.u32.u64 %r1, %rd1;\ncvt.u32.u64 %r2, %rd2;\ncvt.u32.u64 %r3, %rd3;\n\
         {body}\nmov.u32 %r20, %tid.x;\nmul.wide.u32 %rd22, %r20, 8;\nadd.s64 %rd21, %rd21, %rd22;\n\
         st.global.b64 [%rd21], %rd9;\nret;\n}}\n"
    )
}

fn launch(text: &str, block: u32, shared_bytes: u32, input: [u64; 3]) -> Result<u64, LaunchError> {
    let module = Module::read(text).unwrap_or_else(|error| panic!("{error}"));
    let mut output = vec![0_u64; block as usize];
    let arguments = (input.as_ptr(), output.as_mut_ptr());
    let shape = Launch { grid: [1; 3], block, shared_bytes, cooperative: false, seed: 0 };
    // SAFETY: three numbers to read, and one for each thread to write.
    unsafe { module.launch("kernel", shape, &arguments) }?;
    assert!(output.iter().all(|value| *value == output[0]), "threads differ: {output:?}");
    Ok(output[0])
}

fn run(body: &str, input: [u64; 3]) -> u64 {
    launch(&text(body), 32, 0, input).unwrap_or_else(|error| panic!("{body}: {error}"))
}

fn f32s(input: [f32; 3]) -> [u64; 3] {
    input.map(|value| value.to_bits().into())
}

fn of_f32s(instruction: &str, input: [f32; 3]) -> f32 {
    f32::from_bits(run(&format!("{instruction}\ncvt.u64.u32 %rd9, %r9;"), f32s(input)) as u32)
}

#[test]
fn shifts_stop_at_the_width() {
    for (by, left, right, signed) in
        [(4, 0xfffffff0, 0x0fffffff, u32::MAX), (32, 0, 0, u32::MAX), (u32::MAX, 0, 0, u32::MAX)]
    {
        let shifted = |operation: &str| {
            run(&format!("{operation} %r9, %r1, %r2;\ncvt.u64.u32 %rd9, %r9;"), [u32::MAX.into(), by.into(), 0]) as u32
        };
        assert_eq!([shifted("shl.b32"), shifted("shr.u32"), shifted("shr.s32")], [left, right, signed], "by {by}");
    }
    assert_eq!(run("shl.b64 %rd9, %rd1, %r2;", [3, 63, 0]), 1 << 63);
    assert_eq!(run("shr.s64 %rd9, %rd1, %r2;", [1 << 63, 64, 0]), u64::MAX);
}

#[test]
fn carries_go_from_word_to_word() {
    let numbers = [0, 1, u64::MAX, 1 << 63, 0x0123_4567_89ab_cdef];
    for a in numbers {
        for b in numbers {
            // (a, b) + (b, a) and (a, b) − (b, a), the first being the high word; the high word of each.
            let (x, y) = (u128::from(a) << 64 | u128::from(b), u128::from(b) << 64 | u128::from(a));
            let sum = run("add.cc.s64 %rd8, %rd2, %rd1;\naddc.s64 %rd9, %rd1, %rd2;", [a, b, 0]);
            assert_eq!(sum, (x.wrapping_add(y) >> 64) as u64, "{a:x} {b:x}");
            let difference = run("sub.cc.s64 %rd8, %rd2, %rd1;\nsubc.cc.s64 %rd9, %rd1, %rd2;", [a, b, 0]);
            assert_eq!(difference, (x.wrapping_sub(y) >> 64) as u64, "{a:x} {b:x}");
        }
    }
}

#[test]
fn products_have_two_halves() {
    for (a, b) in [(u64::MAX, u64::MAX), (1 << 63, 3), (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210)] {
        let product = u128::from(a) * u128::from(b);
        assert_eq!(run("mul.lo.s64 %rd9, %rd1, %rd2;", [a, b, 0]), product as u64);
        assert_eq!(run("mul.hi.u64 %rd9, %rd1, %rd2;", [a, b, 0]), (product >> 64) as u64);
        assert_eq!(run("mad.lo.s64 %rd9, %rd1, %rd2, %rd3;", [a, b, 7]), (product as u64).wrapping_add(7));
    }
    assert_eq!(run("mul.wide.u32 %rd9, %r1, -1;", [0xffff_fffe, 0, 0]), 0xffff_fffe * 0xffff_ffff);
    assert_eq!(run("mul.wide.s32 %rd9, %r1, %r2;", [0xffff_fffe, 3, 0]), (-6_i64) as u64);
}

#[test]
fn bits_are_counted_and_cut_out() {
    assert_eq!(run("clz.b64 %r9, %rd1;\ncvt.u64.u32 %rd9, %r9;", [0, 0, 0]), 64);
    assert_eq!(run("clz.b32 %r9, %r1;\ncvt.u64.u32 %rd9, %r9;", [1, 0, 0]), 31);
    assert_eq!(run("popc.b32 %r9, %r1;\ncvt.u64.u32 %rd9, %r9;", [0xff_0000_00ff, 0, 0]), 8);
    assert_eq!(run("bfe.u64 %rd9, %rd1, 8, 12;", [0xabc_deff, 0, 0]), 0xcde);
    assert_eq!(run("mov.b64 {%r8, %r9}, %rd1;\nmov.b64 %rd9, {%r9, %r8};", [0x1_0000_0002, 0, 0]), 0x2_0000_0001);
    assert_eq!(
        run("cvt.u16.u32 %rs1, %r1;\ncvt.s32.s16 %r9, %rs1;\ncvt.u64.u32 %rd9, %r9;", [0x1_8000, 0, 0]),
        0xffff_8000
    );
}

#[test]
fn a_nan_loses_and_zeros_have_an_order() {
    assert_eq!(of_f32s("min.f32 %r9, %r1, %r2;", [f32::NAN, 3.0, 0.0]), 3.0);
    assert_eq!(of_f32s("max.f32 %r9, %r1, %r2;", [3.0, f32::NAN, 0.0]), 3.0);
    assert!(of_f32s("min.f32 %r9, %r1, %r2;", [0.0, -0.0, 0.0]).is_sign_negative());
    assert!(of_f32s("max.f32 %r9, %r1, %r2;", [-0.0, 0.0, 0.0]).is_sign_positive());
    let compared = |comparison: &str, b: f32| {
        run(&format!("setp.{comparison}.f32 %p1, %r1, %r2;\nselp.b64 %rd9, 1, 0, %p1;"), f32s([1.0, b, 0.0]))
    };
    for (ordered, or_nan, holds) in
        [("lt", "ltu", 0), ("le", "leu", 1), ("eq", "equ", 1), ("ne", "neu", 0), ("ge", "geu", 1), ("gt", "gtu", 0)]
    {
        assert_eq!((compared(ordered, 1.0), compared(or_nan, 1.0)), (holds, holds), "{ordered}");
        assert_eq!((compared(ordered, f32::NAN), compared(or_nan, f32::NAN)), (0, 1), "{ordered}");
    }
    assert_eq!((compared("nan", f32::NAN), compared("num", f32::NAN)), (1, 0));
}

#[test]
fn fused_is_rounded_once() {
    let [a, b, c] = [1.0 + f32::EPSILON, 1.0 - f32::EPSILON, -1.0];
    assert_eq!(of_f32s("fma.rn.f32 %r9, %r1, %r2, %r3;", [a, b, c]), -f32::EPSILON * f32::EPSILON);
    assert_eq!(of_f32s("mul.rn.f32 %r9, %r1, %r2;\nadd.rn.f32 %r9, %r9, %r3;", [a, b, c]), 0.0);
}

#[test]
fn conversions_stay_within_the_range() {
    let to_integer = |kind: &str, value: f64| run(&format!("cvt.rzi.{kind}.f64 %rd9, %rd1;"), [value.to_bits(), 0, 0]);
    assert_eq!(to_integer("s64", -1.9), (-1_i64) as u64);
    assert_eq!(to_integer("s64", 1e30), i64::MAX as u64);
    assert_eq!(to_integer("s64", f64::NAN), 1 << 63);
    assert_eq!(to_integer("u64", -5.0), 0);
    let small = |value: f32| run("cvt.rzi.s32.f32 %r9, %r1;\ncvt.u64.u32 %rd9, %r9;", f32s([value, 0.0, 0.0])) as i32;
    assert_eq!([small(-3e9), small(3e9), small(f32::NAN), small(-7.9)], [i32::MIN, i32::MAX, 0, -7]);
    assert_eq!(f64::from_bits(run("cvt.rn.f64.u64 %rd9, %rd1;", [u64::MAX, 0, 0])), 2_f64.powi(64));
}

#[test]
fn a_guard_holds_an_instruction_back() {
    let body = "setp.eq.b64 %p1, %rd1, 5;\nmov.b64 %rd9, 1;\n@%p1 bra $L1;\nmov.b64 %rd9, 2;\n$L1:\n@!%p1 add.s64 %rd9, %rd9, 10;";
    assert_eq!((run(body, [5, 0, 0]), run(body, [6, 0, 0])), (1, 12));
}

#[test]
fn lanes_that_meet_at_different_instructions_are_named() {
    // What an optimisation makes of a shuffle that it copies into both arms of a branch.
    let body = "mov.u32 %r4, %tid.x;\nsetp.lt.u32 %p1, %r4, 7;\n@%p1 bra $L1;\n\
                shfl.sync.bfly.b32 %r5, %r4, 1, 31, -1;\nbra.uni $L2;\n$L1:\n\
                shfl.sync.bfly.b32 %r5, %r4, 1, 31, -1;\n$L2:\ncvt.u64.u32 %rd9, %r5;";
    let error = launch(&text(body), 32, 0, [0; 3]).expect_err("half a warp at either").to_string();
    assert!(error.contains("of the PTX where lane 0 is at line"), "{error}");
}

#[test]
fn what_the_emulator_checks_is_checked_here() {
    let beyond = launch(&text("mov.b32 %r4, 64;\nld.shared.b32 %r5, [%r4];"), 32, 64, [0; 3]);
    assert!(matches!(beyond, Err(LaunchError::Fault(_))), "{beyond:?}");
    let half = "mov.u32 %r4, %tid.x;\nsetp.lt.u32 %p1, %r4, 32;\n@%p1 bra $L1;\nbar.sync 0;\n$L1:";
    let divergent = launch(&text(half), 64, 0, [0; 3]);
    assert!(matches!(divergent, Err(LaunchError::Fault(_))), "{divergent:?}");
}

#[test]
fn what_is_not_known_is_refused_where_it_stands() {
    for statement in [
        "add.f32 %r9, %r1, %r2;",                    // may be fused
        "ex2.approx.f32 %r9, %r1;",                  // a GPU's own
        "bar.sync 1;",                               // another barrier
        "shfl.sync.bfly.b32 %r9, %r1, 1, 7215, -1;", // a part of the warp
        "call.uni helper;",
        "ld.local.b32 %r9, [%r1];",
    ] {
        let error = Module::read(&text(statement)).expect_err(statement);
        assert!(matches!(error.reason, Reason::Unknown), "{statement}: {error}");
        assert_eq!(error.line, 13, "{error}");
        assert_eq!(error.statement, statement);
    }
    let error = Module::read(&text("bra $L7;")).expect_err("no label");
    assert!(matches!(error.reason, Reason::Label), "{error}");
}

#[test]
fn a_launch_fits_the_kernel() {
    let module = Module::read(&text("mov.b64 %rd9, 0;")).expect("readable");
    let shape = Launch { grid: [1; 3], block: 32, shared_bytes: 0, cooperative: false, seed: 0 };
    // SAFETY: nothing is run.
    let [short, unknown] =
        unsafe { [module.launch("kernel", shape, &0_u64), module.launch("other", shape, &[0_u64; 2])] };
    assert!(matches!(short, Err(LaunchError::Arguments { expected: 16, found: 8, .. })), "{short:?}");
    assert!(matches!(unknown, Err(LaunchError::NoEntry(_))), "{unknown:?}");
}
