//! Alias tables built in parallel are the tables of wtacrs-core, slot by slot, and draws from them its draws.

use crate::common::{Machine, for_each_machine};
use proptest::prelude::*;
use wtacrs_core::Randomness;
use wtacrs_core::sampling::AliasTable;
use wtacrs_exact::random::Stream;
use wtacrs_kernels::kernel::alias::{BuildArgs, SHARED_BYTES, SampleArgs, scratch_bytes};
use wtacrs_kernels::kernel::{ALIAS_BUILD, ALIAS_SAMPLE};
use wtacrs_kernels::launch::Shape;

fn check(machine: &mut Machine, masses: &[u64], tables: usize, threads: u32, seed: u64) {
    let entries = masses.len() / tables;
    let core: Vec<AliasTable> =
        masses.chunks(entries).map(|masses| AliasTable::new(masses).expect("positive")).collect();

    let (own, alias) = (machine.filled(masses.len(), 7), machine.filled(masses.len(), 7));
    let (totals, from) = (machine.filled(tables, 7), machine.upload(masses));
    let scratch = machine.unwritten::<u8>(tables * scratch_bytes(entries as u32) as usize);
    let args = BuildArgs {
        masses: from.pointer(),
        entries: entries as u32,
        own: own.pointer(),
        alias: alias.pointer(),
        totals: totals.pointer(),
        scratch: scratch.pointer(),
    };
    let grid = [1, 1, tables as u32];
    let shape = Shape { grid, block: threads, shared_bytes: SHARED_BYTES, cooperative: false };
    // SAFETY: memory of the sizes that the arguments say.
    unsafe { machine.run(&ALIAS_BUILD, shape, &args) };
    let sums: Vec<u64> = masses.chunks(entries).map(|masses| masses.iter().sum()).collect();
    assert_eq!(machine.download(&totals), sums);
    let built = machine.download(&own).into_iter().zip(machine.download(&alias));
    let slots = core.iter().flat_map(|table| table.slots());
    for (entry, ((own, alias), slot)) in built.zip(slots).enumerate() {
        assert_eq!((own, alias), (slot.own, slot.alias), "{entry}: {masses:?}");
    }

    let draws = 50;
    let picks = machine.unwritten::<u32>(tables * draws);
    let args = SampleArgs {
        own: own.pointer(),
        alias: alias.pointer(),
        totals: totals.pointer(),
        entries: entries as u32,
        draws: draws as u32,
        seed,
        offset: 11,
        first_stream: 2,
        picks: picks.pointer(),
    };
    let grid = [2, 1, tables as u32];
    let shape = Shape { grid, block: 32, shared_bytes: 0, cooperative: false };
    // SAFETY: memory of the sizes that the arguments say.
    unsafe { machine.run(&ALIAS_SAMPLE, shape, &args) };
    for (table, (picks, core)) in machine.download(&picks).chunks(draws).zip(&core).enumerate() {
        let stream = Stream::new(Randomness::new(seed, 11), 2 + table as u32);
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
            let random = Stream::new(Randomness::new(salt, 0), 0).bits(i);
            if sparse && random >> 125 != 0 { 0 } else { random as u64 >> (64 - bits) }
        };
        let mut masses: Vec<u64> = (0..(tables * entries) as u64).map(mass).collect();
        masses[0] += 1;
        masses[2 * entries - 1] += 1;
        check(&mut Machine::drawn(salt), &masses, tables, threads, salt);
    }
}

#[test]
fn equal_masses_and_a_giant() {
    let mut masses = vec![1; 1000];
    masses[500] = 1 << 61;
    for_each_machine(|machine| {
        check(machine, &[5; 70], 1, 64, 1);
        check(machine, &masses, 1, 256, 2);
        check(machine, &[3], 1, 32, 3);
    });
}
