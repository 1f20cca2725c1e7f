//! Runs blocks: resumes one ready thread after another until all have ended, or none can go on.

use super::fault::{Activity, Fault, MaskMisuse};
use super::global::Global;
use super::lanes::lanes;
use super::machine::{Block, Status, Thread, enter};
use super::order::Order;
use super::shape::{Counts, Launch};
use super::stack::{MOST, Stacks, StaggeredStack};
use corosensei::{Coroutine, CoroutineResult};
use std::any::Any;
use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// After so many rounds in which only spinning threads ran and none changed anything, the launch is a deadlock.
const IDLE_ROUNDS: u32 = 1000;

type Kernel<'a> = &'a (dyn Fn() + Sync);

/// Runs `kernel` once by every thread of the launch.
///
/// # Errors
///
/// The first mistake that a thread of the lowest faulty block makes. Everything that the kernel wrote before stays written.
pub fn launch(launch: Launch, kernel: &(dyn Fn() + Sync)) -> Result<(), Fault> {
    count(launch, kernel).map(|_| ())
}

/// [`launch()`] with counts.
///
/// # Errors
///
/// As for [`launch()`].
pub fn count(launch: Launch, kernel: &(dyn Fn() + Sync)) -> Result<Counts, Fault> {
    launch.check()?;
    let global = Rc::new(Global::new(launch.blocks()));
    let result = run_all(&launch, &global, kernel);
    global.stores.all(&global.notes);
    result
}

/// Runs all blocks together, or one after another in an order of the seed.
fn run_all(launch: &Launch, global: &Rc<Global>, kernel: Kernel<'_>) -> Result<Counts, Fault> {
    let blocks = launch.blocks();
    if launch.cooperative {
        return together(launch, global, 0..blocks, kernel);
    }
    let mut order = Order::new(launch.seed, u64::MAX);
    let mut waiting: VecDeque<u64> = (0..blocks).collect();
    let mut result = Ok(Counts::default());
    while !waiting.is_empty() {
        // The first and the last stay where they are until they are taken: orders that are not random take them.
        let i = order.below(waiting.len());
        let next = if i + 1 == waiting.len() { waiting.pop_back() } else { waiting.swap_remove_front(i) };
        let Some(index) = next else { break };
        match (together(launch, global, index..index + 1, kernel), &mut result) {
            (Ok(one), Ok(all)) => all.barriers = all.barriers.max(one.barriers),
            (Ok(_), Err(_)) => {}
            (Err(fault), _) => {
                // The launch reports the fault of the lowest faulty block, whichever is found first.
                waiting.retain(|&other| other < index);
                result = Err(fault);
            }
        }
    }
    result
}

type Routine = Coroutine<(), (), (), StaggeredStack>;

/// A block and the stacks of its threads. The coroutines come first, so that they are dropped before the block.
struct Resident {
    routines: Vec<Option<Routine>>,
    block: Rc<Block>,
    last_warp: u32,
}

/// Runs blocks that are resident together, on this OS thread.
fn together(
    launch: &Launch,
    global: &Rc<Global>,
    range: std::ops::Range<u64>,
    kernel: Kernel<'_>,
) -> Result<Counts, Fault> {
    let threads = (range.end - range.start) * u64::from(launch.block);
    if threads > MOST as u64 {
        let reason = format!("a cooperative launch may have {MOST}");
        return Err(Fault::Stacks { threads, reason });
    }
    let mut stacks = Stacks::reserve(threads as usize);
    let (changes, blocks) = (Rc::default(), Rc::default());
    let mut residents: Vec<_> = range
        .map(|i| {
            let block = Block::new(i, launch, global, (&changes, &blocks));
            let routines = (0..launch.block).map(|_| None).collect();
            Resident { routines, block, last_warp: 0 }
        })
        .collect();
    *blocks.borrow_mut() = residents.iter().map(|resident| Rc::downgrade(&resident.block)).collect();
    let outer = enter(std::ptr::null());
    let result = drive(&mut residents, &mut stacks, Order::new(launch.seed, u64::MAX), global, &changes, kernel);
    for resident in &mut residents {
        for (thread, routine) in resident.block.threads.iter().zip(&mut resident.routines) {
            if let Some(mut routine) = routine.take() {
                enter(thread);
                routine.force_unwind();
                stacks.give(routine.into_stack());
            }
        }
    }
    enter(outer);
    let barriers = residents.iter().map(|resident| resident.block.barriers.get()).max().unwrap_or(0);
    result.map(|()| Counts { barriers })
}

fn drive(
    residents: &mut [Resident],
    stacks: &mut Stacks,
    mut order: Order,
    global: &Global,
    changes: &Cell<u64>,
    kernel: Kernel<'_>,
) -> Result<(), Fault> {
    let count = residents.len();
    let mut idle = 0;
    let mut before = 0;
    loop {
        let from = order.below(count);
        let ready = (0..count).map(|i| (from + i) % count).find(|&i| residents[i].block.ready.get() != 0);
        if let Some(next) = ready {
            run_some(&mut residents[next], stacks, kernel, || count > 1 && order.leaves())?;
            continue;
        }
        if residents.iter().all(|resident| resident.block.is_finished()) {
            return Ok(());
        }
        let arrived = global.stores.one(&mut order, &global.notes);
        let now = changes.get();
        idle = if now == before && !arrived { idle + 1 } else { 0 };
        before = now;
        let spinning = residents.iter().any(|resident| resident.block.spinning.get() != 0);
        if !spinning || idle > IDLE_ROUNDS {
            return Err(diagnose(residents));
        }
        for resident in &*residents {
            resident.block.wake_spinning();
        }
    }
}

/// Runs threads of one block until none is ready, or another block is due.
fn run_some(
    resident: &mut Resident,
    stacks: &mut Stacks,
    kernel: Kernel<'_>,
    leaves: impl FnMut() -> bool,
) -> Result<(), Fault> {
    let running = Cell::new(0);
    let outcome = catch_unwind(AssertUnwindSafe(|| step(resident, stacks, kernel, leaves, &running)));
    outcome.unwrap_or_else(|payload| {
        let index = running.get();
        if let Some(done) = resident.routines[index].take() {
            stacks.give(done.into_stack());
        }
        Err(Fault::Panic { block: resident.block.index, thread: index as u32, message: message(&*payload) })
    })
}

/// [`run_some`] without its guard against panics; keeps the running thread's index in `running`.
fn step(
    resident: &mut Resident,
    stacks: &mut Stacks,
    kernel: Kernel<'_>,
    mut leaves: impl FnMut() -> bool,
    running: &Cell<usize>,
) -> Result<(), Fault> {
    let block = &*resident.block;
    let mut last = resident.last_warp;
    while !leaves() {
        let ready = block.ready.get();
        if ready == 0 {
            break;
        }
        let (warp, lane) = {
            let mut order = block.order.borrow_mut();
            let warp = order.warp(ready, last);
            (warp, order.lane(block.warps[warp as usize].ready.get()))
        };
        last = warp;
        let lanes = &block.warps[warp as usize].ready;
        lanes.set(lanes.get() & !(1 << lane));
        if lanes.get() == 0 {
            block.ready.set(ready & !(1 << warp));
        }
        let index = (warp * 32 + lane) as usize;
        let thread = &block.threads[index];
        let routine = match &mut resident.routines[index] {
            Some(routine) => routine,
            empty => empty.insert(start(thread, stacks, kernel, block)?),
        };
        enter(thread);
        running.set(index);
        if let CoroutineResult::Return(()) = routine.resume(()) {
            if let Some(done) = resident.routines[index].take() {
                stacks.give(done.into_stack());
            }
            finish(thread);
        }
        if block.faulty.get()
            && let Some(fault) = block.fault.borrow_mut().take()
        {
            return Err(fault);
        }
    }
    resident.last_warp = last;
    Ok(())
}

fn start(thread: &Thread, stacks: &mut Stacks, kernel: Kernel<'_>, block: &Block) -> Result<Routine, Fault> {
    let stack = stacks
        .take()
        .map_err(|error| Fault::Stacks { threads: block.threads.len() as u64, reason: error.to_string() })?;
    let thread: *const Thread = thread;
    // SAFETY: the coroutine is driven to its end or unwound before `together` returns, during which the kernel and the
    // block, with its threads, are borrowed or owned by `together`.
    Ok(unsafe {
        Coroutine::with_stack_unchecked(stack, move |yielder, ()| {
            (*thread).yielder.set(yielder);
            kernel();
        })
    })
}

fn finish(thread: &Thread) {
    let block = thread.block();
    thread.status.set(Status::Finished);
    block.finished.set(block.finished.get() + 1);
    if let Some(flight) = thread.flights.borrow().front() {
        block.fail(Fault::CopyAbandoned { culprit: thread.culprit(flight.place) });
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "of an unknown type".to_owned()
    }
}

/// Why no thread can go on. A block in which no thread spins explains most, since the others may wait for it.
fn diagnose(residents: &[Resident]) -> Fault {
    let stuck = residents.iter().map(|resident| &*resident.block).filter(|block| !block.is_finished());
    let faults = stuck.map(|block| {
        let (groups, block_index) = (block.groups(), block.index);
        let any = |what: fn(&Activity) -> bool| groups.iter().any(|group| what(&group.activity));
        if any(|activity| matches!(activity, Activity::Spinning(_))) {
            return Fault::Deadlock { block: block_index, groups };
        }
        if let Some(fault) = misused_mask(block) {
            return fault;
        }
        if any(|activity| matches!(activity, Activity::Barrier(_))) {
            return Fault::BarrierDivergence { block: block_index, groups };
        }
        Fault::WarpDivergence { block: block_index, groups }
    });
    let faults: Vec<_> = faults.collect();
    let says_most = faults.iter().position(|fault| !matches!(fault, Fault::Deadlock { .. })).unwrap_or(0);
    match faults.into_iter().nth(says_most) {
        Some(fault) => fault,
        None => unreachable!("asked of blocks that are stuck"),
    }
}

/// A lane that waits for one that has ended, or for one whose mask differs.
fn misused_mask(block: &Block) -> Option<Fault> {
    for thread in &block.threads {
        if thread.status.get() != Status::Collective {
            continue;
        }
        // SAFETY: no thread runs.
        let slots = unsafe { &*thread.warp().slots.get() };
        let own = thread.lane() as usize;
        let (mask, operation) = (slots.masks[own], slots.operations[own]);
        for lane in lanes(mask) {
            let other = &block.threads[(thread.index - thread.lane() + lane) as usize];
            let (theirs, other_mask) = (slots.operations[lane as usize], slots.masks[lane as usize]);
            let misuse = match other.status.get() {
                Status::Finished => MaskMisuse::LaneFinished { mask, lane },
                Status::Collective if theirs == operation && other_mask != mask => {
                    MaskMisuse::Different { mask, lane, other: other_mask }
                }
                _ => continue,
            };
            return Some(Fault::LaneMask { culprit: thread.culprit(slots.places[own]), operation, misuse });
        }
    }
    None
}
