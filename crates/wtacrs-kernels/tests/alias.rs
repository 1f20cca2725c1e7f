//! Alias tables built in parallel are the tables of wtacrs-core, slot by slot, and draws from them its draws.

use proptest::prelude::*;
use wtacrs_core::alias::AliasTable;
use wtacrs_core::chance::Stream;
use wtacrs_kernels::kernel::alias::{BuildArgs, SHARED_BYTES, SampleArgs, scratch_bytes};
use wtacrs_kernels::kernel::{ALIAS_BUILD, ALIAS_SAMPLE};
use wtacrs_kernels::launch::{Emulator, Launcher, Shape};

/// Tables of equally many entries, one after another.
struct Tables {
    own: Vec<u64>,
    alias: Vec<u32>,
    totals: Vec<u64>,
}

fn build(masses: &[u64], tables: usize, threads: u32, seed: u64) -> Tables {
    let entries = (masses.len() / tables) as u32;
    let mut built = Tables { own: vec![7; masses.len()], alias: vec![7; masses.len()], totals: vec![7; tables] };
    let mut scratch = vec![u128::MAX; tables * scratch_bytes(entries) as usize / 16];
    let args = BuildArgs {
        masses: masses.as_ptr(),
        entries,
        own: built.own.as_mut_ptr(),
        alias: built.alias.as_mut_ptr(),
        totals: built.totals.as_mut_ptr(),
        scratch: scratch.as_mut_ptr().cast(),
    };
    let grid = [1, 1, tables as u32];
    let shape = Shape { grid, block: threads, shared_bytes: SHARED_BYTES, cooperative: false };
    // SAFETY: memory of the sizes that the arguments tell.
    unsafe { Emulator { seed }.launch(&ALIAS_BUILD, shape, &args) }.expect("no fault");
    built
}

fn check(masses: &[u64], tables: usize, threads: u32, seed: u64) {
    let entries = masses.len() / tables;
    let built = build(masses, tables, threads, seed);
    let core: Vec<AliasTable> = masses.chunks(entries).map(AliasTable::new).collect();
    for (table, core) in core.iter().enumerate() {
        assert_eq!(built.totals[table], masses[table * entries..][..entries].iter().sum::<u64>());
        for (entry, slot) in core.slots().iter().enumerate() {
            let at = table * entries + entry;
            assert_eq!((built.own[at], built.alias[at]), (slot.own, slot.alias), "{entry}: {masses:?}");
        }
    }

    let draws = 50;
    let mut picks = vec![u32::MAX; tables * draws];
    let args = SampleArgs {
        own: built.own.as_ptr(),
        alias: built.alias.as_ptr(),
        totals: built.totals.as_ptr(),
        entries: entries as u32,
        draws: draws as u32,
        seed,
        offset: 11,
        first_stream: 2,
        picks: picks.as_mut_ptr(),
    };
    let grid = [2, 1, tables as u32];
    let shape = Shape { grid, block: 32, shared_bytes: 0, cooperative: false };
    // SAFETY: memory of the sizes that the arguments tell.
    unsafe { Emulator { seed }.launch(&ALIAS_SAMPLE, shape, &args) }.expect("no fault");
    for (table, (picks, core)) in picks.chunks(draws).zip(&core).enumerate() {
        let stream = Stream::new(seed, 11, 2 + table as u32);
        for (draw, &pick) in picks.iter().enumerate() {
            assert_eq!(pick as usize, core.pick(stream.bits(draw as u64)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_masses(
        entries in 1_usize..200,
        bits in 1_u32..54,
        sparse in any::<bool>(),
        salt in any::<u64>(),
        threads in prop::sample::select(vec![32_u32, 64, 256]),
    ) {
        let tables = 2;
        let mass = |i: u64| {
            let random = Stream::new(salt, 0, 0).bits(i);
            if sparse && random >> 125 != 0 { 0 } else { random as u64 >> (64 - bits) }
        };
        let mut masses: Vec<u64> = (0..(tables * entries) as u64).map(mass).collect();
        masses[0] += 1;
        masses[2 * entries - 1] += 1;
        check(&masses, tables, threads, salt);
    }
}

#[test]
fn equal_masses_and_a_giant() {
    check(&[5; 70], 1, 64, 1);
    let mut masses = vec![1; 1000];
    masses[500] = 1 << 61;
    check(&masses, 1, 256, 2);
    check(&[3], 1, 32, 3);
}
