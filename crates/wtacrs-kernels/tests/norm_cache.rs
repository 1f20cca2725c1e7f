//! The norm cache in device memory against wtacrs-core's, sample by sample, with batches of every kind of mistake.

use crate::common::{Buffer, Machine, for_each_machine};
use proptest::prelude::*;
use std::convert::Infallible;
use wtacrs_core::Randomness;
use wtacrs_core::guesses::{NormCache, NormCacheError};
use wtacrs_exact::random::Stream;
use wtacrs_kernels::kernel::norm_cache::{Args, Fault, SHARED_BYTES, Status, fetch_shape, store_shape};
use wtacrs_kernels::kernel::{NORM_CACHE_FETCH, NORM_CACHE_STORE};
use wtacrs_kernels::launch::{LaunchList, Shape};
use wtacrs_kernels::plan::{CacheBatch, CacheMisfit, ExecuteError, Memory, NormCachePlan, PlanError};

/// Floats before and behind a batch's norms, which must not change.
const GUARD: usize = 5;
const UNTOUCHED: f32 = 77.0;

/// A batch as a caller has it.
#[derive(Clone, Debug)]
struct Batch {
    samples: Vec<u64>,
    lengths: Option<Vec<u64>>,
    row_tokens: usize,
    norms: Vec<f32>,
}

/// A cache on both sides.
struct Pair {
    plan: NormCachePlan,
    samples: u64,
    most: u64,
    memory: Buffer<u8>,
    oracle: NormCache,
    /// The first fault so far.
    reported: (u64, u32),
    /// Threads of a block, if not the plan's own launch.
    shape: Option<(u32, u32)>,
}

/// A sample of a batch, by the rules.
struct Entry {
    sample: u64,
    begin: u64,
    length: u64,
    fault: Option<Fault>,
}

impl Batch {
    fn entries(&self, samples: u64, most: u64) -> Vec<Entry> {
        let mut end = 0_u64;
        let entry = |(at, &sample): (usize, &u64)| {
            let length = self.lengths.as_ref().map_or(self.row_tokens as u64, |lengths| lengths[at]);
            let (begin, rest) = match self.row_tokens {
                0 => (end, (self.norms.len() as u64).saturating_sub(end)),
                row => ((at * row) as u64, row as u64),
            };
            end = end.saturating_add(length);
            let fault = match () {
                () if sample >= samples => Some(Fault::Id),
                () if length > most || length > rest => Some(Fault::Length),
                () => None,
            };
            Entry { sample, begin, length, fault }
        };
        self.samples.iter().enumerate().map(entry).collect()
    }

    fn of(&self, entry: &Entry) -> &[f32] {
        // One of no tokens may lie beyond the norms.
        let first = (entry.begin as usize).min(self.norms.len());
        &self.norms[first..][..entry.length as usize]
    }
}

impl Pair {
    fn new(machine: &Machine, samples: usize, most: usize, oracle: NormCache) -> Self {
        let plan = NormCachePlan::new(samples, most).expect("it fits");
        let mut bytes = plan.first_bytes(&oracle).expect("it fits");
        // The other bytes may be anything.
        bytes.resize(plan.bytes() as usize, 0xff);
        let memory = machine.upload(&bytes);
        Self { plan, samples: samples as u64, most: most as u64, memory, oracle, reported: (0, 0), shape: None }
    }

    fn report(&mut self, entry: &Entry, fault: Fault) {
        if self.reported.1 == 0 {
            self.reported = (entry.sample, fault as u32);
        }
    }

    fn cache(&self) -> Memory {
        Memory { at: self.memory.bytes(), bytes: self.memory.len() as u64 }
    }

    /// Runs a launch with its arguments, in the shape that a test wants.
    fn launch(&self, machine: &mut Machine, batch: &Batch, norms: *mut f32, is_fetch: bool) {
        let samples = machine.upload(&batch.samples);
        let lengths = batch.lengths.as_ref().map(|lengths| machine.upload(lengths));
        let given = CacheBatch {
            samples: samples.pointer(),
            lengths: lengths.as_ref().map_or(std::ptr::null(), |lengths| lengths.pointer()),
            count: batch.samples.len(),
            row_tokens: batch.row_tokens,
            tokens: batch.norms.len(),
        };
        let Some((blocks, threads)) = self.shape else {
            // SAFETY: memory of the sizes that the batch says.
            let launched = unsafe {
                match is_fetch {
                    true => self.plan.fetch(machine, self.cache(), &given, norms),
                    false => self.plan.store(machine, self.cache(), &given, norms),
                }
            };
            return launched.unwrap_or_else(|error| panic!("{machine:?}: {error}"));
        };
        let part = |offset: u64| self.memory.bytes().wrapping_add(offset as usize);
        let args = Args {
            samples: given.samples,
            lengths: given.lengths,
            count: given.count as u32,
            row_tokens: given.row_tokens as u64,
            norms,
            tokens: given.tokens as u64,
            cache_samples: self.samples,
            sample_tokens: self.most,
            known: part(self.plan.known().offset).cast(),
            stored: part(self.plan.norms(0).offset).cast(),
            status: part(self.plan.status().offset).cast(),
        };
        let shape = Shape { grid: [blocks, 1, 1], block: threads, shared_bytes: SHARED_BYTES, cooperative: false };
        // SAFETY: as above.
        unsafe { machine.run(if is_fetch { &NORM_CACHE_FETCH } else { &NORM_CACHE_STORE }, shape, &args) };
    }

    fn fetch(&mut self, machine: &mut Machine, batch: &Batch) {
        let mut expected = vec![UNTOUCHED; batch.norms.len() + 2 * GUARD];
        expected[GUARD..][..batch.norms.len()].fill(-1.0);
        for entry in batch.entries(self.samples, self.most) {
            let fault = match entry.fault {
                None => match self.oracle.fetch(&[(entry.sample, entry.length as usize)]) {
                    Ok(norms) => {
                        let to = expected.iter_mut().skip(GUARD.saturating_add(entry.begin as usize));
                        to.zip(norms).for_each(|(to, norm)| *to = norm.unwrap_or(-1.0));
                        None
                    }
                    Err(NormCacheError::LengthChanged { .. }) => Some(Fault::Changed),
                    Err(error) => panic!("{error}"),
                },
                fault => fault,
            };
            if let Some(fault) = fault {
                self.report(&entry, fault);
            }
        }
        let norms = machine.upload(&vec![UNTOUCHED; batch.norms.len() + 2 * GUARD]);
        self.launch(machine, batch, norms.pointer().wrapping_add(GUARD), true);
        assert_eq!(machine.download(&norms), expected, "{machine:?}: {batch:?}");
        self.check(machine, batch);
    }

    fn store(&mut self, machine: &mut Machine, batch: &Batch) {
        let entries = batch.entries(self.samples, self.most);
        for (at, entry) in entries.iter().enumerate() {
            let mut fault = entry.fault;
            if fault.is_none() {
                let is_last = entries[at + 1..].iter().all(|later| later.sample != entry.sample);
                let mut tried = self.oracle.clone();
                match tried.store(&[(entry.sample, entry.length as usize)], batch.of(entry)) {
                    Ok(()) if is_last => self.oracle = tried,
                    Ok(()) => {}
                    Err(NormCacheError::InvalidNorm { .. }) => fault = Some(Fault::Norm),
                    Err(error) => panic!("{error}"),
                }
            }
            if let Some(fault) = fault {
                self.report(entry, fault);
            }
        }
        let norms = machine.upload(&batch.norms);
        self.launch(machine, batch, norms.pointer(), false);
        self.check(machine, batch);
    }

    fn forget(&mut self, machine: &mut Machine, ids: &[u64]) {
        let samples = machine.upload(ids);
        // SAFETY: as many ids as the count says.
        let launched = unsafe { self.plan.forget(machine, self.cache(), samples.pointer(), ids.len()) };
        launched.unwrap_or_else(|error| panic!("{machine:?}: {error}"));
        ids.iter().for_each(|&sample| _ = self.oracle.forget(sample));
        self.check(machine, &ids);
    }

    /// The whole memory is as it should be, and between launches nothing is left in the status.
    fn check(&self, machine: &Machine, what: &dyn std::fmt::Debug) {
        let bytes = machine.download(&self.memory);
        let part = |offset: u64, bytes_of: u64| &bytes[offset as usize..][..bytes_of as usize];
        let lengths = NormCachePlan::lengths(part(self.plan.known().offset, self.plan.known().bytes));
        let norms = self.plan.norms(self.samples as usize);
        let cache = self.plan.cache(&lengths, part(norms.offset, norms.bytes)).expect("norms");
        assert_eq!(cache.to_bytes(), self.oracle.to_bytes(), "{machine:?}: {what:?}");
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let reported = (word(0), word(8) as u32);
        assert_eq!(self.plan.status().offset, 0);
        assert_eq!((reported, word(8) >> 32, word(16)), (self.reported, 0, 0), "{machine:?}: {what:?}");
    }
}

/// Batches of a cache that is for 6 samples of at most 40 tokens.
fn batch(random: &mut impl FnMut(u64) -> u64) -> Batch {
    let count = random(9) as usize;
    let is_odd = random(3) == 0;
    let samples: Vec<u64> = (0..count)
        .map(|_| match random(if is_odd { 16 } else { 12 }) {
            12 => 6,
            13 => u64::MAX,
            14 => 1 << 32,
            15 => random(1 << 40),
            of_cache => of_cache % 6,
        })
        .collect();
    let kind = random(3);
    let row_tokens = if kind == 0 { 0 } else { random(45) as usize };
    let length = |random: &mut dyn FnMut(u64) -> u64, sample: u64| match random(if is_odd { 12 } else { 8 }) {
        8 => 41,
        9 => random(50),
        10 => u64::MAX - random(2),
        11 => 1 << 33,
        // Mostly the same samples, so that stored ones are found.
        _ => sample % 41 * 7 % 41,
    };
    let has_lengths = kind < 2 || row_tokens == 0;
    let lengths = has_lengths.then(|| samples.iter().map(|&sample| length(random, sample)).collect::<Vec<u64>>());
    let needed = match (&lengths, row_tokens) {
        (Some(lengths), 0) => lengths.iter().map(|&length| length.min(50)).sum::<u64>() as usize,
        _ => count * row_tokens,
    };
    let room = (needed + random(30) as usize).saturating_sub(if row_tokens == 0 && is_odd { 10 } else { 0 });
    let norm = |random: &mut dyn FnMut(u64) -> u64| match random(if is_odd { 100 } else { 90 }) {
        90..=92 => f32::NAN,
        93..=95 => -(random(9) as f32) / 8.0,
        96..=98 => f32::INFINITY,
        _ => random(1 << 20) as f32 / 4096.0,
    };
    let norms = (0..room).map(|_| norm(random)).collect();
    Batch { samples, lengths, row_tokens, norms }
}

fn check_batches(machine: &mut Machine, salt: u64, steps: u64, shape: Option<(u32, u32)>) {
    let stream = Stream::new(Randomness::new(salt, 0), 0);
    let mut drawn = 0;
    let mut random = |below: u64| {
        drawn += 1;
        (stream.bits(drawn) >> 64) as u64 % below
    };
    let mut first = NormCache::new();
    first.store(&[(0, 0), (4, 28), (5, 3)], &[0.5; 31]).expect("norms");
    let mut pair = Pair::new(machine, 6, 40, first);
    pair.shape = shape;
    for _ in 0..steps {
        match random(5) {
            0 => {
                let ids: Vec<u64> = (0..random(4)).map(|_| random(8)).collect();
                pair.forget(machine, &ids);
            }
            1 | 2 => pair.store(machine, &batch(&mut random)),
            _ => pair.fetch(machine, &batch(&mut random)),
        }
    }
}

#[test]
fn batches_of_every_kind() {
    for_each_machine(|machine| (0..40).for_each(|salt| check_batches(machine, salt, 10, None)));
}

#[test]
fn every_order_of_threads_and_every_geometry() {
    for seed in 0..24 {
        let machine = &mut Machine::drawn(seed);
        for shape in [None, Some((1, 32)), Some((2, 64)), Some((5, 96)), Some((40, 32))] {
            check_batches(machine, 1000 + seed, 6, shape);
        }
    }
}

/// The last of a sample counts, also where an earlier one is longer; the first fault stays, also behind later ones.
#[test]
fn the_last_wins_and_the_first_fault_stays() {
    for_each_machine(|machine| {
        let mut pair = Pair::new(machine, 6, 8, NormCache::new());
        let twice = Batch {
            samples: vec![2, 3, 2],
            lengths: Some(vec![8, 1, 2]),
            row_tokens: 0,
            norms: (0..11).map(|norm| norm as f32).collect(),
        };
        pair.store(machine, &twice);
        assert_eq!(pair.oracle.fetch(&[(2, 2), (3, 1)]), Ok(vec![Some(9.0), Some(10.0), Some(8.0)]));
        assert_eq!(pair.reported.1, 0);
        // An earlier one with an invalid norm is reported, and the last one stored; an invalid last one leaves the old norms.
        let mut spoiled = twice.clone();
        spoiled.norms[3] = f32::NAN;
        pair.store(machine, &spoiled);
        assert_eq!(pair.reported, (2, Fault::Norm as u32));
        spoiled.norms[10] = -1.0;
        pair.store(machine, &spoiled);
        assert_eq!(pair.oracle.fetch(&[(2, 2)]), Ok(vec![Some(9.0), Some(10.0)]));
        pair.fetch(machine, &Batch { samples: vec![9], ..twice.clone() });
        assert_eq!(pair.reported, (2, Fault::Norm as u32));

        // In one batch: the first of several, whichever block finds it first.
        let mut fresh = Pair::new(machine, 6, 8, pair.oracle.clone());
        let many = Batch {
            samples: vec![1, 2, 7, 1 << 40, 3],
            lengths: Some(vec![1, 3, 1, 1, 9]),
            row_tokens: 9,
            norms: vec![0.0; 45],
        };
        fresh.fetch(machine, &many);
        assert_eq!(fresh.reported, (2, Fault::Changed as u32));
        let mut fresh = Pair::new(machine, 6, 8, pair.oracle.clone());
        fresh.store(machine, &many);
        assert_eq!(fresh.reported, (7, Fault::Id as u32));
    });
}

/// The lengths before a sample add up beyond 64 bits, within one thread and over several: its norms are not elsewhere then.
#[test]
fn absurd_lengths_do_not_come_around() {
    for_each_machine(|machine| {
        for second in [1, 32] {
            let mut pair = Pair::new(machine, 6, 8, NormCache::new());
            let (mut lengths, mut samples) = (vec![0; 70], vec![4; 70]);
            (lengths[0], lengths[second], lengths[64]) = (u64::MAX, 6, 3);
            samples[64] = 5;
            let batch = Batch { samples, lengths: Some(lengths), row_tokens: 0, norms: vec![1.0; 20] };
            pair.store(machine, &batch);
            assert_eq!(pair.reported, (4, Fault::Length as u32));
            pair.fetch(machine, &batch);
        }
    });
}

#[test]
fn caches_of_nothing() {
    for_each_machine(|machine| {
        for (samples, most) in [(0, 0), (0, 5), (3, 0)] {
            let mut pair = Pair::new(machine, samples, most, NormCache::new());
            let batch =
                Batch { samples: vec![1, 0, 9], lengths: Some(vec![0, 2, 0]), row_tokens: 0, norms: vec![1.0; 4] };
            pair.fetch(machine, &batch);
            pair.store(machine, &batch);
            pair.fetch(machine, &batch);
            pair.fetch(machine, &Batch { norms: vec![], ..batch });
            pair.fetch(machine, &Batch { samples: vec![], lengths: None, row_tokens: 0, norms: vec![1.0; 300] });
            pair.fetch(machine, &Batch { samples: vec![], lengths: None, row_tokens: 7, norms: vec![] });
        }
    });
}

/// More samples than a launch has blocks, longer than a block has threads.
#[test]
fn large_batches() {
    for_each_machine(|machine| {
        let (count, length) = (300, 300);
        let mut pair = Pair::new(machine, count, length, NormCache::new());
        let samples: Vec<u64> = (0..count as u64).map(|at| (at * 7 + 1) % count as u64).collect();
        let norms: Vec<f32> = (0..count * length).map(|at| (at % 4099) as f32).collect();
        let rows = Batch { samples, lengths: None, row_tokens: length, norms };
        pair.store(machine, &rows);
        pair.shape = Some((7, 128));
        pair.fetch(machine, &rows);
        let lengths = (0..count as u64).map(|at| at % 301).collect();
        pair.store(machine, &Batch { lengths: Some(lengths), row_tokens: 0, ..rows.clone() });
        assert_eq!(pair.reported.1, 0);
        assert_eq!(pair.oracle.len(), count);
    });
    assert_eq!(fetch_shape(u32::MAX, 1).grid, [1 << 16, 1, 1]);
    assert_eq!((fetch_shape(3, 100).grid[0], fetch_shape(3, 100).block), (4, 128));
    assert_eq!((store_shape(3, 0).grid[0], store_shape(3, 0).block), (3, 32));
    assert_eq!(store_shape(1, u64::MAX).block, 256);
}

#[test]
fn what_does_not_fit_is_refused() {
    let most = u32::MAX as usize - 1;
    assert!(matches!(NormCachePlan::new(1, most + 1), Err(PlanError::TooLarge { found, .. }) if found == most + 1));
    assert!(matches!(NormCachePlan::new(usize::MAX, 2), Err(PlanError::Overflow { .. })));
    assert!(matches!(NormCachePlan::new(1 << 30, 1 << 20), Err(PlanError::Overflow { .. })));
    let plan = NormCachePlan::new(4, 2).expect("it fits");
    let mut cache = NormCache::new();
    cache.store(&[(1, 3)], &[1.0; 3]).expect("norms");
    assert_eq!(plan.first_bytes(&cache), Err(CacheMisfit::Tokens { sample: 1, tokens: 3, most: 2 }));
    cache.store(&[(1, 2), (4, 1)], &[1.0; 3]).expect("norms");
    assert_eq!(plan.first_bytes(&cache), Err(CacheMisfit::Sample { sample: 4, samples: 4 }));

    let mut list = LaunchList::default();
    let somewhere = std::ptr::without_provenance_mut::<u8>(4096);
    let memory = Memory { at: somewhere, bytes: plan.bytes() };
    let batch = CacheBatch { samples: somewhere.cast(), lengths: somewhere.cast(), count: 3, row_tokens: 2, tokens: 6 };
    type Outcome = Result<(), ExecuteError<Infallible>>;
    let mut fetch = |memory, batch: CacheBatch, norms: *mut u8| -> Outcome {
        // SAFETY: nothing is run.
        unsafe { plan.fetch(&mut list, memory, &batch, norms.cast()) }
    };
    assert_eq!(fetch(memory, batch, somewhere), Ok(()));
    let null = |what| Err(ExecuteError::Null { what });
    assert_eq!(fetch(memory, batch, std::ptr::null_mut()), null("the norms"));
    assert_eq!(fetch(memory, CacheBatch { samples: std::ptr::null(), ..batch }, somewhere), null("the samples"));
    let packed = CacheBatch { lengths: std::ptr::null(), row_tokens: 0, ..batch };
    assert_eq!(fetch(memory, packed, somewhere), null("the lengths"));
    assert!(matches!(fetch(memory, batch, somewhere.wrapping_add(2)), Err(ExecuteError::Misaligned { .. })));
    let short = fetch(memory, CacheBatch { tokens: 5, ..batch }, somewhere);
    assert_eq!(short, Err(ExecuteError::TooSmall { what: "the memory of the norms", needed: 24, found: 20 }));
    let little = fetch(Memory { bytes: plan.bytes() - 1, ..memory }, batch, somewhere);
    assert!(matches!(little, Err(ExecuteError::TooSmall { what: "the norm cache", .. })));
    let many = CacheBatch { count: u32::MAX as usize, row_tokens: 0, ..batch };
    assert!(matches!(fetch(memory, many, somewhere), Err(ExecuteError::TooLarge { .. })));
    // SAFETY: nothing is run.
    unsafe {
        plan.store(&mut list, memory, &CacheBatch { count: 0, ..batch }, std::ptr::null()).expect("nothing to do");
        plan.forget(&mut list, memory, std::ptr::null(), 0).expect("nothing to do");
        plan.store(&mut list, memory, &batch, somewhere.cast()).expect("it fits");
        plan.forget(&mut list, memory, somewhere.cast(), 2).expect("it fits");
    }
    let names: Vec<_> = list.launches().iter().map(|launch| launch.kernel).collect();
    assert_eq!(names, ["norm_cache_fetch", "norm_cache_store", "norm_cache_store"]);
    assert_eq!(size_of::<Status>(), 24);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_batches(salt: u64, seed: u64) {
        check_batches(&mut Machine::drawn(seed), salt, 8, None);
    }
}
