//! What the counts of a launch's memory accesses mean.

use wtacrs_ptx::{Module, Traffic};
use wtacrs_simt::emulator::Launch;

/// What one warp asks of memory whose lanes begin `stride` bytes apart, in a kernel with the lane's address in %rd1.
fn measured(stride: u32, body: &str) -> Traffic {
    let text = format!(
        ".visible .entry kernel(\n.param .align 8 .b8 kernel_param_0[8]\n)\n{{\n\
         ld.param.b64 %rd2, [kernel_param_0];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd3, %r1, {stride};\n\
         add.s64 %rd1, %rd2, %rd3;\n{body}\nret;\n}}\n"
    );
    /// As device memory is.
    #[repr(align(256))]
    struct Memory([u8; 4096]);
    let memory = Box::new(Memory([0; 4096]));
    let module = Module::read(&text).unwrap_or_else(|error| panic!("{error}"));
    let shape = Launch { grid: [1; 3], block: 32, shared_bytes: 0, cooperative: false, seed: 0 };
    // SAFETY: the bodies below stay within the memory.
    unsafe { module.measure("kernel", shape, &memory.0.as_ptr()) }.unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn sectors_are_counted_for_a_warp() {
    for (stride, sectors, least_sectors) in [(0, 1, 1), (4, 4, 4), (8, 8, 4), (32, 32, 4), (64, 32, 4)] {
        let expected =
            |loads| Traffic { accesses: 1, loads, sectors, least_sectors, bytes_in_flight: 0, instructions: 6 };
        assert_eq!(measured(stride, "ld.global.b32 %r2, [%rd1];"), expected(1), "{stride} bytes apart");
        // Lanes that all store to one place race.
        if stride > 0 {
            assert_eq!(measured(stride, "st.global.b32 [%rd1], %r1;"), expected(0), "{stride} bytes apart");
        }
    }
    let wide = measured(16, "ld.global.v4.b32 {%r2, %r3, %r4, %r5}, [%rd1];");
    assert_eq!((wide.accesses, wide.sectors, wide.least_sectors), (1, 16, 16));
}

#[test]
fn instructions_count_once_and_only_where_a_thread_comes() {
    let skipped = "bra.uni $L1;\nadd.s32 %r9, %r1, 1;\n$L1:";
    assert_eq!(measured(4, skipped).instructions, measured(4, "").instructions + 1);
    let by_some = "setp.lt.u32 %p1, %r1, 3;\n@%p1 bra $L1;\nadd.s32 %r9, %r1, 1;\n$L1:";
    assert_eq!(measured(4, by_some).instructions, measured(4, "").instructions + 3);
}

#[test]
fn loads_are_on_their_way_until_one_is_waited_for() {
    let (first, second) = ("ld.global.b32 %r2, [%rd1];", "ld.global.b32 %r3, [%rd1+128];");
    let use_of = |register: &str| format!("add.s32 %r9, {register}, 1;");
    let bytes = |lines: &[&str]| measured(4, &lines.join("\n")).bytes_in_flight;
    let (a, b) = (use_of("%r2"), use_of("%r3"));
    assert_eq!(bytes(&[first, &a]), 4);
    assert_eq!(bytes(&[first, second, &a, &b]), 8);
    // Without a branch between them, the assembler puts both loads first.
    assert_eq!(bytes(&[first, &a, second, &b]), 8);
    assert_eq!(bytes(&[first, &a, "bra.uni $L1;", "$L1:", second, &b]), 4);
    assert_eq!(bytes(&[first, &a, "bar.sync 0;", second, &b]), 4);
    assert_eq!(bytes(&[first, &a, "st.global.b32 [%rd1], %r1;", second, &b]), 4);
    // A move waits for nothing, and what it has moved is still on its way.
    assert_eq!(bytes(&[first, "mov.b32 %r4, %r2;", "bra.uni $L1;", "$L1:", second, &use_of("%r4")]), 8);
    // An address that is loaded is waited for.
    let pointer = "mul.wide.u32 %rd4, %r2, 4;\nadd.s64 %rd5, %rd1, %rd4;\nld.global.b32 %r3, [%rd5];";
    assert_eq!(bytes(&[first, pointer, &b]), 4);
}
