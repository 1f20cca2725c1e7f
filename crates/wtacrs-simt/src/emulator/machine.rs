//! A block: its threads, warps and shared memory; and the thread that runs now.

use super::fault::{Activity, Culprit, Fault, Operation, Place, ThreadGroup};
use super::global::Global;
use super::lanes::Slots;
use super::order::Order;
use super::release::{Common, Insight, Notes};
use super::shadow::{Access, Shadow, Trouble, TroubleKind};
use super::shape::{Launch, block_index};
use corosensei::Yielder;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::VecDeque;
use std::panic::Location;
use std::ptr::null;
use std::rc::{Rc, Weak};

/// Where shared memory begins: not at 0, as on a GPU, whose system keeps the first bytes.
pub(super) const SHARED_BASE: u32 = 1024;

/// The state of a thread.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ready,
    Barrier(Place),
    Collective,
    Spinning(Place),
    Finished,
}

/// A copy that has not landed.
pub(super) struct Flight {
    pub(super) to: u32,
    pub(super) from: *const u8,
    pub(super) bytes: u32,
    pub(super) valid: u32,
    /// What it has read of its source, if it has read it.
    pub(super) value: Option<[u8; 16]>,
    /// How many commits came before it.
    pub(super) group: u64,
    pub(super) place: Place,
}

impl Flight {
    /// Whether its source meets bytes of global memory.
    pub(super) fn reads(&self, at: usize, bytes: usize) -> bool {
        (self.from as usize) < at + bytes && at < self.from as usize + self.valid as usize
    }
}

pub(super) struct Thread {
    pub(super) index: u32,
    block: Cell<*const Block>,
    pub(super) yielder: Cell<*const Yielder<(), ()>>,
    pub(super) status: Cell<Status>,
    pub(super) flights: RefCell<VecDeque<Flight>>,
    pub(super) commits: Cell<u64>,
    pub(super) polls: Cell<Polls>,
    pub(super) insight: RefCell<Insight>,
    /// How many of the launch's changes this thread made.
    changes: Cell<u64>,
}

/// How often in a row a thread found the same value at one address.
#[derive(Clone, Copy, Default)]
pub(super) struct Polls {
    pub(super) at: usize,
    pub(super) value: u64,
    pub(super) count: u32,
    /// The changes of others at the first of them: [`Thread::others`].
    pub(super) others: u64,
}

pub(super) struct Warp {
    pub(super) ready: Cell<u32>,
    pub(super) spinning: Cell<u32>,
    /// Lanes that wait in a collective operation.
    pub(super) meeting: Cell<u32>,
    pub(super) slots: UnsafeCell<Slots>,
}

pub(super) struct Block {
    pub(super) index: [u32; 3],
    /// Its place in the order of the launch's blocks.
    pub(super) number: u32,
    pub(super) grid: [u32; 3],
    pub(super) shared_bytes: u32,
    pub(super) cooperative: bool,
    pub(super) threads: Vec<Thread>,
    pub(super) warps: Vec<Warp>,
    /// Warps that have ready lanes.
    pub(super) ready: Cell<u32>,
    pub(super) at_barrier: Cell<u32>,
    /// Barriers that all threads have reached.
    pub(super) barriers: Cell<u64>,
    /// Where the first thread waits, and whether all others wait there.
    pub(super) barrier: Cell<(Place, bool)>,
    pub(super) finished: Cell<u32>,
    pub(super) spinning: Cell<u32>,
    /// Counts the changes that a spinning thread could wait for, in all blocks that are resident together.
    pub(super) changes: Rc<Cell<u64>>,
    pub(super) order: RefCell<Order>,
    pub(super) faulty: Cell<bool>,
    pub(super) fault: RefCell<Option<Fault>>,
    pub(super) shadow: Shadow,
    /// The launch's global memory, and the blocks that are resident together.
    pub(super) global: Rc<Global>,
    pub(super) residents: Rc<Residents>,
    pub(super) common: RefCell<Common>,
    /// Whether a thread has something to share at the next barrier.
    pub(super) has_news: Cell<bool>,
    /// The notes at addresses of shared memory.
    pub(super) notes: RefCell<Notes>,
    shared: Bytes,
}

pub(super) type Residents = RefCell<Vec<Weak<Block>>>;

thread_local! {
    static CURRENT: Cell<*const Thread> = const { Cell::new(null()) };
}

/// The thread that runs.
#[inline(always)]
pub(super) fn current<'a>() -> &'a Thread {
    let thread = CURRENT.get();
    if thread.is_null() {
        outside();
    }
    // SAFETY: the scheduler sets it before it resumes a thread, and takes it back when the thread pauses; a block and
    // its threads stay in place until all their coroutines are gone.
    unsafe { &*thread }
}

/// Makes a thread the current one; returns the one before.
#[inline(always)]
pub(super) fn enter(thread: *const Thread) -> *const Thread {
    CURRENT.replace(thread)
}

#[cold]
fn outside() -> ! {
    panic!("a kernel's function was called outside of a launch")
}

impl Block {
    pub(super) fn new(
        number: u64,
        shape: &Launch,
        global: &Rc<Global>,
        with: (&Rc<Cell<u64>>, &Rc<Residents>),
    ) -> Rc<Self> {
        let (changes, residents) = with;
        let block = Rc::new(Self {
            index: block_index(shape.grid, number),
            number: number as u32,
            grid: shape.grid,
            shared_bytes: shape.shared_bytes,
            cooperative: shape.cooperative,
            threads: (0..shape.block).map(Thread::new).collect(),
            warps: (0..shape.block / 32).map(|_| Warp::new()).collect(),
            ready: Cell::new((u64::MAX >> (64 - shape.block / 32)) as u32),
            at_barrier: Cell::new(0),
            barriers: Cell::new(0),
            barrier: Cell::new((Place(Location::caller()), true)),
            finished: Cell::new(0),
            spinning: Cell::new(0),
            changes: Rc::clone(changes),
            order: RefCell::new(Order::new(shape.seed, number)),
            faulty: Cell::new(false),
            fault: RefCell::new(None),
            shadow: Shadow::new(shape.shared_bytes, shape.block),
            global: Rc::clone(global),
            residents: Rc::clone(residents),
            common: RefCell::default(),
            has_news: Cell::new(false),
            notes: RefCell::default(),
            shared: Bytes::new(shape.shared_bytes),
        });
        for thread in &block.threads {
            thread.block.set(Rc::as_ptr(&block));
        }
        block
    }

    /// The first byte of shared memory.
    #[inline(always)]
    pub(super) fn shared(&self) -> *mut u8 {
        self.shared.start
    }

    /// Lets lanes of a warp go on.
    #[inline(always)]
    pub(super) fn wake(&self, warp: u32, lanes: u32) {
        if lanes != 0 {
            let ready = &self.warps[warp as usize].ready;
            ready.set(ready.get() | lanes);
            self.ready.set(self.ready.get() | 1 << warp);
        }
    }

    /// Lets all spinning threads go on.
    pub(super) fn wake_spinning(&self) {
        for (index, warp) in self.warps.iter().enumerate() {
            self.wake(index as u32, warp.spinning.replace(0));
        }
        self.spinning.set(0);
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished.get() as usize == self.threads.len()
    }

    /// What all threads do, those that do the same together.
    pub(super) fn groups(&self) -> Vec<ThreadGroup> {
        self.groups_of(&self.threads)
    }

    /// [`Self::groups`] of some threads, where others may be about to run.
    pub(super) fn groups_of(&self, threads: &[Thread]) -> Vec<ThreadGroup> {
        let mut groups: Vec<ThreadGroup> = Vec::new();
        for thread in threads {
            let activity = match thread.status.get() {
                Status::Barrier(place) => Activity::Barrier(place),
                Status::Spinning(place) => Activity::Spinning(place),
                Status::Collective => {
                    let (operation, mask, place) = self.slot(thread.index);
                    Activity::Collective(operation, mask, place)
                }
                Status::Ready | Status::Finished => Activity::Finished,
            };
            match groups.iter_mut().find(|group| group.activity == activity) {
                Some(group) => group.threads.push(thread.index),
                None => groups.push(ThreadGroup { threads: vec![thread.index], activity }),
            }
        }
        groups
    }

    fn slot(&self, thread: u32) -> (Operation, u32, Place) {
        // SAFETY: no thread holds the slots while threads wait.
        let slots = unsafe { &*self.warps[(thread / 32) as usize].slots.get() };
        let lane = (thread % 32) as usize;
        (slots.operations[lane], slots.masks[lane], slots.places[lane])
    }

    pub(super) fn fail(&self, fault: Fault) {
        self.faulty.set(true);
        self.fault.borrow_mut().get_or_insert(fault);
    }
}

impl Warp {
    fn new() -> Self {
        Self {
            ready: Cell::new(u32::MAX),
            spinning: Cell::new(0),
            meeting: Cell::new(0),
            slots: UnsafeCell::new(Slots::new()),
        }
    }
}

impl Thread {
    /// Without a block: the block sets it once it has an address.
    fn new(index: u32) -> Self {
        Self {
            index,
            block: Cell::new(null()),
            yielder: Cell::new(null()),
            status: Cell::new(Status::Ready),
            flights: RefCell::default(),
            commits: Cell::new(0),
            polls: Cell::default(),
            insight: RefCell::default(),
            changes: Cell::new(0),
        }
    }

    #[inline(always)]
    pub(super) fn block(&self) -> &Block {
        // SAFETY: a thread lives in its block, which sets the pointer before anything else sees the thread.
        unsafe { &*self.block.get() }
    }

    #[inline(always)]
    pub(super) fn lane(&self) -> u32 {
        self.index % 32
    }

    #[inline(always)]
    pub(super) fn warp(&self) -> &Warp {
        &self.block().warps[(self.index / 32) as usize]
    }

    pub(super) fn culprit(&self, place: Place) -> Culprit {
        Culprit { block: self.block().index, thread: self.index, place }
    }

    /// Counts a change that a spinning thread could wait for.
    #[inline(always)]
    pub(super) fn changed(&self) {
        let changes = &self.block().changes;
        changes.set(changes.get() + 1);
        self.changes.set(self.changes.get() + 1);
    }

    /// How many changes other threads have made, and how many barriers they have passed.
    pub(super) fn others(&self) -> u64 {
        let block = self.block();
        block.changes.get() - self.changes.get() + block.barriers.get()
    }

    /// Lets others run until one of them wakes this thread.
    #[inline(always)]
    pub(super) fn pause(&self, status: Status) {
        self.status.set(status);
        // SAFETY: this thread runs, so its coroutine has set the yielder, which lives on its stack.
        unsafe { (*self.yielder.get()).suspend(()) };
        self.status.set(Status::Ready);
    }

    /// Lets others run now and then, where the order of threads' accesses could matter.
    #[inline(always)]
    pub(super) fn pause_sometimes(&self) {
        let block = self.block();
        if block.order.borrow_mut().pauses() {
            block.wake(self.index / 32, 1 << self.lane());
            self.pause(Status::Ready);
        }
    }

    /// Records an access to shared memory, and ends the launch if it is a fault.
    #[inline(always)]
    pub(super) fn access(&self, offset: u32, bytes: u32, access: Access, place: Place) {
        if let Err(trouble) = self.block().shadow.access(self.index, offset, bytes, access) {
            self.refuse(trouble, access, place);
        }
    }

    /// Ends the launch for an access to shared memory.
    #[cold]
    #[inline(never)]
    pub(super) fn refuse(&self, Trouble { offset, kind }: Trouble, access: Access, place: Place) -> ! {
        let culprit = self.culprit(place);
        self.fail(match kind {
            TroubleKind::Unwritten => Fault::Unwritten { culprit, offset },
            TroubleKind::Race { other, how } => {
                let now = match access {
                    Access::Read => "read",
                    Access::Write => "written",
                    Access::Atomic => "changed atomically",
                };
                Fault::Race { culprit, offset, other, how: format!("{how} by thread {other} and {now} here") }
            }
            TroubleKind::InFlight { issuer } => {
                let flights = self.block().threads[issuer as usize].flights.borrow();
                let covers = |flight: &&Flight| (flight.to..flight.to + flight.bytes).contains(&offset);
                let issued = flights.iter().find(covers).map_or(place, |flight| flight.place);
                Fault::InFlight { culprit, offset, issuer, issued }
            }
        })
    }

    /// Ends the launch.
    #[cold]
    #[inline(never)]
    pub(super) fn fail(&self, fault: Fault) -> ! {
        self.block().fail(fault);
        loop {
            self.pause(Status::Finished);
        }
    }
}

/// Shared memory, aligned to 1024.
struct Bytes {
    start: *mut u8,
    layout: Layout,
}

impl Bytes {
    fn new(bytes: u32) -> Self {
        let Ok(layout) = Layout::from_size_align(bytes.max(1) as usize, 1024) else { unreachable!("a small size") };
        // SAFETY: the size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        if start.is_null() {
            handle_alloc_error(layout);
        }
        Self { start, layout }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start, self.layout) };
    }
}
