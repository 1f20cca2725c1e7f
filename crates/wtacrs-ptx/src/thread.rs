//! One thread of a launch: its registers, and what each instruction does to them.

use crate::arithmetic::{compare, compute, convert, lowest};
use crate::instruction::{
    Access, Atomic, Entry, Instruction, Multiply, Operand, Operation, Reduce, Shuffle, Space, Special, Type, Vote,
};
use crate::traffic::{Meter, ThreadMeter};
use std::collections::HashMap;
use wtacrs_simt::atomic::{self, Integer};
use wtacrs_simt::memory::{U32x2, U32x4, Word, load, load_constant, store};
use wtacrs_simt::shared::{Address, Shared};
use wtacrs_simt::{cp_async, index, matrix, sync, warp};

/// All lanes of a warp.
const WHOLE_WARP: u32 = u32::MAX;

/// The arguments of a launch, which all its threads read.
#[derive(Clone, Copy)]
pub(crate) struct Arguments {
    first: *const u8,
    bytes: usize,
}

// SAFETY: it is only read, and outlives the launch.
unsafe impl Sync for Arguments {}

impl Arguments {
    pub(crate) fn new<A: Copy>(arguments: &A) -> Self {
        Self { first: (&raw const *arguments).cast(), bytes: size_of::<A>() }
    }

    /// The bytes at an offset as a number, the lowest byte first.
    ///
    /// # Safety
    ///
    /// A value lies there, not padding.
    unsafe fn read(&self, offset: usize, bytes: usize) -> u64 {
        assert!(offset + bytes <= self.bytes, "byte {offset} of {} bytes of arguments", self.bytes);
        let mut value = [0; 8];
        // SAFETY: within the arguments, as asserted; the caller promises that they are initialised.
        unsafe { value.as_mut_ptr().copy_from_nonoverlapping(self.first.add(offset), bytes) };
        u64::from_le_bytes(value)
    }
}

/// Runs a kernel as the current thread of the emulator.
///
/// # Safety
///
/// The arguments keep the kernel's promises, and the block has so many bytes of shared memory.
pub(crate) unsafe fn run(entry: &Entry, shared_bytes: u32, arguments: Arguments, meter: Option<&Meter>) {
    let registers = vec![0; entry.registers as usize];
    let meter = meter.map(ThreadMeter::new);
    let mut thread = Thread { registers, carry: false, shared_bytes, arguments, polled: HashMap::new(), meter };
    let mut next = 0;
    loop {
        let instruction = &entry.instructions[next];
        if let Some(meter) = &mut thread.meter {
            meter.comes_to(next, instruction);
        }
        let runs = instruction.guard.is_none_or(|(register, is)| (thread.registers[register as usize] & 1 == 1) == is);
        next += 1;
        if !runs {
            continue;
        }
        match instruction.operation {
            Operation::Branch(to) => next = to as usize,
            Operation::Return => return,
            // SAFETY: the caller's promise.
            _ => unsafe { thread.step(instruction) },
        }
    }
}

struct Thread<'a> {
    registers: Vec<u64>,
    carry: bool,
    shared_bytes: u32,
    arguments: Arguments,
    /// The values last seen of words that other threads may change.
    polled: HashMap<u64, u64>,
    /// Where a launch is measured.
    meter: Option<ThreadMeter<'a>>,
}

impl Thread<'_> {
    fn value(&self, operand: Operand) -> u64 {
        match operand {
            Operand::Register(register) => self.registers[register as usize],
            Operand::Constant(value) => value,
            Operand::Sum(register, offset) => self.registers[register as usize].wrapping_add_signed(offset),
            Operand::Special(special) => u64::from(match special {
                Special::Thread => index::thread(),
                Special::BlockThreads => index::block_threads(),
                Special::Lane => index::lane(),
                Special::Block(axis) => index::block()[usize::from(axis)],
                Special::Grid(axis) => index::grid()[usize::from(axis)],
                Special::Nothing(value) => value,
            }),
        }
    }

    fn read(&self, instruction: &Instruction, i: usize) -> u64 {
        instruction.from.get(i).map_or(0, |&operand| self.value(operand))
    }

    /// So many operands, from one on.
    fn words<const COUNT: usize>(&self, instruction: &Instruction, first: usize) -> [u32; COUNT] {
        std::array::from_fn(|i| self.read(instruction, first + i) as u32)
    }

    fn write(&mut self, instruction: &Instruction, i: usize, value: u64) {
        self.registers[instruction.to[i] as usize] = value;
    }

    fn write_words(&mut self, instruction: &Instruction, words: &[u32]) {
        for (i, &word) in words.iter().enumerate() {
            self.write(instruction, i, word.into());
        }
    }

    /// Anything but a branch.
    unsafe fn step(&mut self, instruction: &Instruction) {
        let [a, b, c] = [0, 1, 2].map(|i| self.read(instruction, i));
        let result = match instruction.operation {
            Operation::Move => a,
            Operation::Cut(bits) => {
                for i in 0..instruction.to.len() {
                    self.write(instruction, i, lowest(a >> (i as u32 * bits), bits));
                }
                return;
            }
            Operation::Join(bits) => {
                let part = |i: usize| lowest(self.read(instruction, i), bits) << (i as u32 * bits);
                (0..instruction.from.len()).fold(0, |joined, i| joined | part(i))
            }
            Operation::Compute(operation, of) => compute(operation, of, [a, b, c]),
            Operation::Carry { subtract, carry_in, carry_out, bits } => {
                let (a, b) = (u128::from(lowest(a, bits)), u128::from(lowest(b, bits)));
                let carry = u128::from(carry_in && self.carry);
                let sum = if subtract { a.wrapping_sub(b).wrapping_sub(carry) } else { a + b + carry };
                if carry_out {
                    self.carry = sum >> bits & 1 == 1;
                }
                lowest(sum as u64, bits)
            }
            Operation::Compare(comparison, of) => compare(comparison, of, a, b).into(),
            Operation::Select(bits) => lowest(if c & 1 == 1 { a } else { b }, bits),
            Operation::Convert { to, from, towards_zero } => convert(to, from, towards_zero, a),
            Operation::ConvertPair(to) => {
                let [high, low] = [a, b].map(|value| convert(to, Type::F32, false, value));
                high << 16 | low
            }
            // SAFETY: the kernel's own reads of its arguments.
            Operation::Parameter { bytes } => unsafe { self.arguments.read(a as usize, bytes as usize) },
            // SAFETY: the kernel's own accesses, to which its caller's promises lead; shared memory is checked.
            _ => return unsafe { self.access(instruction, [a, b, c]) },
        };
        self.write(instruction, 0, result);
    }

    /// Instructions that reach memory or other threads.
    unsafe fn access(&mut self, instruction: &Instruction, [a, b, c]: [u64; 3]) {
        let result = match instruction.operation {
            Operation::Load(space, access) => {
                if let (Some(meter), Space::Global | Space::Constant) = (&mut self.meter, space) {
                    meter.accesses(instruction, a, access.elements * access.bytes, &instruction.to);
                }
                // SAFETY: the caller's promise.
                let loaded = unsafe { self.load(space, a, access) };
                for i in 0..instruction.to.len() {
                    let bits = 8 * access.bytes;
                    self.write(instruction, i, lowest((loaded >> (i as u32 * bits)) as u64, bits));
                }
                return;
            }
            Operation::Store(space, access) => {
                if let (Some(meter), Space::Global | Space::Constant) = (&mut self.meter, space) {
                    meter.accesses(instruction, a, access.elements * access.bytes, &[]);
                }
                let bits = 8 * access.bytes;
                let element = |i: usize| u128::from(lowest(self.read(instruction, 1 + i), bits)) << (i as u32 * bits);
                let value = (0..access.elements as usize).fold(0, |joined, i| joined | element(i));
                // SAFETY: the caller's promise.
                return unsafe { self.store(space, a, access, value) };
            }
            // SAFETY: the caller's promise.
            Operation::Atomic(space, operation, 32) => unsafe {
                self.atomic(space, operation, a, b as u32, c as u32).into()
            },
            // SAFETY: the caller's promise.
            Operation::Atomic(space, operation, _) => unsafe { self.atomic(space, operation, a, b, c) },
            // SAFETY: the caller's promise.
            Operation::LoadRelaxed(32) => self.polled(a, unsafe { atomic::load_relaxed(a as *const u32).into() }),
            // SAFETY: the caller's promise.
            Operation::LoadRelaxed(_) => self.polled(a, unsafe { atomic::load_relaxed(a as *const u64) }),
            // SAFETY: the caller's promise.
            Operation::StoreRelaxed(32) => return unsafe { atomic::store_relaxed(a as *mut u32, b as u32) },
            // SAFETY: the caller's promise.
            Operation::StoreRelaxed(_) => return unsafe { atomic::store_relaxed(a as *mut u64, b) },
            // SAFETY: the caller's promise.
            Operation::LoadAcquire(32) => self.polled(a, unsafe { atomic::load_acquire(a as *const u32).into() }),
            // SAFETY: the caller's promise.
            Operation::LoadAcquire(_) => self.polled(a, unsafe { atomic::load_acquire(a as *const u64) }),
            // SAFETY: the caller's promise.
            Operation::StoreRelease(32) => return unsafe { atomic::store_release(a as *mut u32, b as u32) },
            // SAFETY: the caller's promise.
            Operation::StoreRelease(_) => return unsafe { atomic::store_release(a as *mut u64, b) },
            Operation::Fence => return sync::device_fence(),
            Operation::Nap => return sync::spin(),
            Operation::Trap => sync::trap(),
            Operation::Barrier => {
                meet(WHOLE_WARP, instruction);
                return sync::barrier();
            }
            Operation::WarpBarrier => {
                meet(a as u32, instruction);
                return sync::warp_barrier(a as u32);
            }
            Operation::Shuffle(shuffle) => {
                // The third operand is the whole warp's bounds.
                let (value, by, mask) = (a as u32, b as u32, self.read(instruction, 3) as u32);
                meet(mask, instruction);
                match shuffle {
                    Shuffle::Butterfly => warp::shuffle_xor(mask, value, by),
                    Shuffle::Up => warp::shuffle_up(mask, value, by),
                    Shuffle::Down => warp::shuffle_down(mask, value, by),
                    Shuffle::Index => warp::shuffle(mask, value, by),
                }
                .into()
            }
            Operation::Vote(vote) => {
                let (predicate, mask) = (a & 1 == 1, b as u32);
                meet(mask, instruction);
                match vote {
                    Vote::Ballot => warp::ballot(mask, predicate).into(),
                    Vote::Any => warp::any(mask, predicate).into(),
                    Vote::All => warp::all(mask, predicate).into(),
                }
            }
            Operation::Reduce(reduce) => {
                let (value, mask) = (a as u32, b as u32);
                meet(mask, instruction);
                match reduce {
                    Reduce::Add => warp::reduce_add(mask, value),
                    Reduce::Least => warp::reduce_min(mask, value),
                    Reduce::Greatest => warp::reduce_max(mask, value),
                    Reduce::Or => warp::reduce_or(mask, value),
                }
                .into()
            }
            Operation::Copy { bytes } => {
                let (to, from) = (self.address(a), b as *const u8);
                let valid = instruction.from.get(3).map_or(bytes, |&valid| self.value(valid) as u32);
                if let (Some(meter), 1..) = (&mut self.meter, valid) {
                    meter.accesses(instruction, b, valid, &[]);
                }
                // SAFETY: the caller's promise.
                return unsafe {
                    match bytes {
                        4 => cp_async::copy::<4>(to, from, valid),
                        8 => cp_async::copy::<8>(to, from, valid),
                        _ => cp_async::copy::<16>(to, from, valid),
                    }
                };
            }
            Operation::CommitCopies => return cp_async::commit(),
            Operation::WaitForCopies { pending } => return wait(pending),
            Operation::LoadMatrix { matrices, transposed } => {
                meet(WHOLE_WARP, instruction);
                let row = self.address(a);
                // SAFETY: the caller's promise.
                return unsafe {
                    match (matrices, transposed) {
                        (4, false) => self.write_words(instruction, &matrix::load_x4(row)),
                        (4, true) => self.write_words(instruction, &matrix::load_x4_transposed(row)),
                        (_, false) => self.write_words(instruction, &matrix::load_x2(row)),
                        (_, true) => self.write_words(instruction, &matrix::load_x2_transposed(row)),
                    }
                };
            }
            Operation::Multiply(multiply) => {
                meet(WHOLE_WARP, instruction);
                let (a, b) = (self.words(instruction, 0), self.words(instruction, 4));
                let c = self.words::<4>(instruction, 6).map(f32::from_bits);
                let product = match multiply {
                    Multiply::Bf16 => matrix::mma_bf16(a, b, c),
                    Multiply::F16 => matrix::mma_f16(a, b, c),
                    Multiply::Tf32 => matrix::mma_tf32(a, b, c),
                };
                return self.write_words(instruction, &product.map(f32::to_bits));
            }
            _ => unreachable!("done by `step` and `run`"),
        };
        self.write(instruction, 0, result);
    }

    /// Returns the value of a word that other threads may change. If it is the value that the thread saw last, the others
    /// run first: the text does not say whether the thread waits for them.
    fn polled(&mut self, at: u64, value: u64) -> u64 {
        if self.polled.insert(at, value) == Some(value) {
            sync::spin();
        }
        value
    }

    /// A place in shared memory.
    fn address(&self, at: u64) -> Address {
        Shared::<u8>::new(0, self.shared_bytes).address(at as u32)
    }

    fn window<T: Word>(&self) -> Shared<T> {
        Shared::new(0, self.shared_bytes / size_of::<T>() as u32)
    }

    unsafe fn load(&self, space: Space, at: u64, access: Access) -> u128 {
        let words = |words: &[u32]| words.iter().rev().fold(0, |joined, &word| joined << 32 | u128::from(word));
        // SAFETY: the caller's promise.
        unsafe {
            match (access.elements * access.bytes, access.elements) {
                (1, _) => self.load_word::<u8>(space, at).into(),
                (2, _) => self.load_word::<u16>(space, at).into(),
                (4, _) => self.load_word::<u32>(space, at).into(),
                (8, 1) => self.load_word::<u64>(space, at).into(),
                (8, _) => words(&self.load_word::<U32x2>(space, at).0),
                _ => words(&self.load_word::<U32x4>(space, at).0),
            }
        }
    }

    unsafe fn load_word<T: Word>(&self, space: Space, at: u64) -> T {
        // SAFETY: the caller's promise.
        unsafe {
            match space {
                Space::Global => load(at as *const T),
                Space::Constant => load_constant(at as *const T),
                Space::Shared => self.window::<T>().read_at(self.address(at)),
            }
        }
    }

    unsafe fn store(&self, space: Space, at: u64, access: Access, value: u128) {
        let word = |i: u32| (value >> (32 * i)) as u32;
        // SAFETY: the caller's promise.
        unsafe {
            match (access.elements * access.bytes, access.elements) {
                (1, _) => self.store_word(space, at, value as u8),
                (2, _) => self.store_word(space, at, value as u16),
                (4, _) => self.store_word(space, at, value as u32),
                (8, 1) => self.store_word(space, at, value as u64),
                (8, _) => self.store_word(space, at, U32x2([0, 1].map(word))),
                _ => self.store_word(space, at, U32x4([0, 1, 2, 3].map(word))),
            }
        }
    }

    unsafe fn store_word<T: Word>(&self, space: Space, at: u64, value: T) {
        // SAFETY: the caller's promise.
        unsafe {
            match space {
                Space::Global | Space::Constant => store(at as *mut T, value),
                Space::Shared => self.window::<T>().write_at(self.address(at), value),
            }
        }
    }

    unsafe fn atomic<T: Integer>(&self, space: Space, operation: Atomic, at: u64, value: T, other: T) -> T {
        let (global, window) = (at as *mut T, self.window::<T>());
        let i = at as u32 / size_of::<T>() as u32;
        if let Space::Shared = space {
            assert!((at as usize).is_multiple_of(size_of::<T>()), "an atomic operation at {at}, which is unaligned");
        }
        // SAFETY: the caller's promise.
        unsafe {
            match (space, operation) {
                (Space::Shared, Atomic::Add) => window.atomic_add(i, value),
                (Space::Shared, Atomic::Least) => window.atomic_min(i, value),
                (Space::Shared, Atomic::Greatest) => window.atomic_max(i, value),
                (Space::Shared, Atomic::Or) => window.atomic_or(i, value),
                (Space::Shared, Atomic::Exchange) => window.atomic_exchange(i, value),
                (Space::Shared, Atomic::CompareExchange) => unreachable!("wtacrs-simt has no such operation"),
                (_, Atomic::Add) => atomic::atomic_add(global, value),
                (_, Atomic::Least) => atomic::atomic_min(global, value),
                (_, Atomic::Greatest) => atomic::atomic_max(global, value),
                (_, Atomic::Or) => atomic::atomic_or(global, value),
                (_, Atomic::Exchange) => atomic::atomic_exchange(global, value),
                (_, Atomic::CompareExchange) => atomic::compare_exchange(global, value, other),
            }
        }
    }
}

/// Before a collective instruction: checks that all lanes of the mask are at it. On a GPU the result is undefined otherwise.
fn meet(mask: u32, instruction: &Instruction) {
    let first = warp::shuffle(mask, instruction.line, mask.trailing_zeros());
    assert!(
        first == instruction.line,
        "a lane is at line {} of the PTX where lane {} is at line {first}",
        instruction.line,
        mask.trailing_zeros()
    );
}

fn wait(pending: u32) {
    match pending {
        0 => cp_async::wait::<0>(),
        1 => cp_async::wait::<1>(),
        2 => cp_async::wait::<2>(),
        3 => cp_async::wait::<3>(),
        4 => cp_async::wait::<4>(),
        5 => cp_async::wait::<5>(),
        6 => cp_async::wait::<6>(),
        _ => cp_async::wait::<7>(),
    }
}
