//! What a launch asks of global memory, counted in the text: how many sectors each access of a warp touches, and how much a
//! thread has on its way before it waits for any of it. And how much of the text the launch needs.

use crate::instruction::{Entry, Instruction, Operand, Operation, Space};
use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use wtacrs_simt::index;

/// Global memory is moved in sectors of so many bytes.
const SECTOR: u64 = 32;

/// What one launch has asked of global memory. Copies to shared memory and plain loads and stores count, atomic operations do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Accesses of warps.
    pub accesses: u64,
    /// Those of them that load. Words that other blocks publish are read by other instructions, which do not count.
    pub loads: u64,
    /// Sectors that the accesses touch, each access on its own.
    pub sectors: u64,
    /// Sectors that as many different bytes would take if they lay together.
    pub least_sectors: u64,
    /// The most bytes of loads that one thread had on their way when it had to wait for one of them. Loads arrive in their order. Of
    /// instructions without a branch, a label, a store or a barrier between them, ptxas is taken to put all loads first whose
    /// addresses are known.
    pub bytes_in_flight: u32,
    /// Instructions of the text that some thread came to: what the launch asks of an instruction cache.
    pub instructions: u64,
}

/// One execution of an instruction by a warp: the block, the warp, the line of the text, and how often the lanes were there
/// before.
type Occasion = ([u32; 3], u32, u32, u32);

/// An access of a warp.
#[derive(Debug)]
struct Access {
    /// Those of all lanes.
    addresses: Vec<u64>,
    /// That each lane accesses.
    bytes: u32,
    loads: bool,
}

/// The counts of a launch.
#[derive(Debug)]
pub(crate) struct Meter {
    /// For each instruction, whether a branch leads there.
    labels: Vec<bool>,
    /// For each instruction, whether a thread came there.
    visited: Vec<AtomicBool>,
    accesses: Mutex<HashMap<Occasion, Access>>,
    bytes_in_flight: Mutex<u32>,
}

impl Meter {
    pub(crate) fn new(entry: &Entry) -> Self {
        let mut labels = vec![false; entry.instructions.len()];
        for instruction in &entry.instructions {
            if let Operation::Branch(to) = instruction.operation
                && let Some(label) = labels.get_mut(to as usize)
            {
                *label = true;
            }
        }
        let visited = entry.instructions.iter().map(|_| AtomicBool::new(false)).collect();
        Self { labels, visited, accesses: Mutex::default(), bytes_in_flight: Mutex::default() }
    }

    /// The sums of what was counted.
    pub(crate) fn traffic(self) -> Traffic {
        let accesses = self.accesses.into_inner().expect("no thread has panicked");
        let bytes_in_flight = self.bytes_in_flight.into_inner().expect("no thread has panicked");
        let instructions = self.visited.into_iter().filter(|visited| visited.load(Ordering::Relaxed)).count() as u64;
        let mut traffic = Traffic { bytes_in_flight, instructions, ..Traffic::default() };
        for Access { mut addresses, bytes, loads } in accesses.into_values() {
            addresses.sort_unstable();
            addresses.dedup();
            let bytes = u64::from(bytes);
            let mut sectors: Vec<u64> =
                addresses.iter().flat_map(|at| at / SECTOR..=(at + bytes - 1) / SECTOR).collect();
            sectors.sort_unstable();
            sectors.dedup();
            traffic.accesses += 1;
            traffic.loads += u64::from(loads);
            traffic.sectors += sectors.len() as u64;
            traffic.least_sectors += (addresses.len() as u64 * bytes).div_ceil(SECTOR);
        }
        traffic
    }
}

/// What one thread has counted.
pub(crate) struct ThreadMeter<'a> {
    meter: &'a Meter,
    /// How often the thread was at a line.
    visits: HashMap<u32, u32>,
    /// Loads that nobody has waited for: the registers that hold their results or what was computed of these, and their bytes.
    in_flight: VecDeque<(Vec<u32>, u32)>,
    /// The last of them that is to be waited for before the next branch, label, store or barrier.
    awaited: Option<usize>,
    most_bytes: u32,
}

impl<'a> ThreadMeter<'a> {
    pub(crate) fn new(meter: &'a Meter) -> Self {
        Self { meter, visits: HashMap::new(), in_flight: VecDeque::new(), awaited: None, most_bytes: 0 }
    }

    /// Before instruction number `at`.
    pub(crate) fn comes_to(&mut self, at: usize, instruction: &Instruction) {
        self.meter.visited[at].store(true, Ordering::Relaxed);
        if self.in_flight.is_empty() {
            return;
        }
        if self.meter.labels[at] {
            self.wait();
        }
        let guard = instruction.guard.map(|(register, _)| register);
        let read = instruction.from.iter().filter_map(|operand| match *operand {
            Operand::Register(register) | Operand::Sum(register, _) => Some(register),
            _ => None,
        });
        let used = guard.into_iter().chain(read).filter_map(|register| self.load_of(register)).max();
        // What a register held before is gone.
        self.in_flight.iter_mut().for_each(|(held, _)| held.retain(|register| !instruction.to.contains(register)));
        let Some(used) = used else {
            if is_end(instruction.operation) {
                self.wait();
            }
            return;
        };
        // ptxas gives the registers of a move one place: it waits for nothing.
        if !matches!(instruction.operation, Operation::Move) {
            self.awaited = self.awaited.max(Some(used));
        }
        match instruction.operation {
            // Its address is needed.
            Operation::Load(..) => self.wait(),
            operation if is_end(operation) => self.wait(),
            _ => self.in_flight[used].0.extend(&instruction.to),
        }
    }

    /// The last load whose result a register holds.
    fn load_of(&self, register: u32) -> Option<usize> {
        self.in_flight.iter().rposition(|(held, _)| held.contains(&register))
    }

    /// Until the awaited loads have arrived.
    fn wait(&mut self) {
        if let Some(last) = self.awaited.take() {
            let bytes: u32 = self.in_flight.iter().map(|&(_, bytes)| bytes).sum();
            self.most_bytes = self.most_bytes.max(bytes);
            self.in_flight.drain(..=last);
        }
    }

    /// An access to global memory of so many bytes. A load has registers for its results.
    pub(crate) fn accesses(&mut self, instruction: &Instruction, at: u64, bytes: u32, results: &[u32]) {
        let visits = self.visits.entry(instruction.line).or_default();
        let warp = index::thread() / wtacrs_simt::WARP;
        let occasion = (index::block(), warp, instruction.line, *visits);
        *visits += 1;
        let mut accesses = self.meter.accesses.lock().expect("no thread has panicked");
        let of_warp = || Access { addresses: Vec::new(), bytes, loads: !results.is_empty() };
        accesses.entry(occasion).or_insert_with(of_warp).addresses.push(at);
        drop(accesses);
        if !results.is_empty() {
            self.in_flight.push_back((results.to_vec(), bytes));
        }
    }
}

/// Whether loads that come later stay behind it.
fn is_end(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::Branch(_)
            | Operation::Return
            | Operation::Barrier
            | Operation::WarpBarrier
            | Operation::Fence
            | Operation::Store(Space::Global, _)
            | Operation::StoreRelaxed(_)
            | Operation::StoreRelease(_)
            | Operation::Atomic(..)
    )
}

impl Drop for ThreadMeter<'_> {
    fn drop(&mut self) {
        if let Ok(mut most) = self.meter.bytes_in_flight.lock() {
            *most = self.most_bytes.max(*most);
        }
    }
}
