//! What a thread knows of the accesses of other blocks, or of its own block beyond barriers: by releases and acquires.
//!
//! A fence notes all accesses before it: those of its thread, those that barriers order before, and those that the thread knows
//! of. An atomic store or change after the fence attaches the note to its address. A thread that reads the value and then fences
//! knows the note. A barrier shares all of this with the block, and a warp's barrier with the mask's lanes. `store_release`
//! attaches a note of its own, and `load_acquire` knows at once what it and earlier loads have read. Without a fence on both
//! sides nothing is known, whatever value was read.
//!
//! The PTX ISA's memory model is narrower in two ways: there the fence is in the thread of the store or the load, and an acquire is
//! of the location that was read. So a kernel that relies on these two is accepted here.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// Clocks that are known to have passed: of whole blocks, by their number, and of single threads.
#[derive(Clone, Default)]
pub(super) struct Known(BTreeMap<(u32, u32), u32>);

/// In place of a thread's index: all threads of the block.
const ALL: u32 = u32::MAX;

impl Known {
    /// Whether an access of a thread at a clock is known.
    #[inline(always)]
    pub(super) fn covers(&self, block: u32, thread: u32, clock: u32) -> bool {
        !self.0.is_empty() && self.has(block, thread, clock)
    }

    fn has(&self, block: u32, thread: u32, clock: u32) -> bool {
        [ALL, thread].iter().any(|&who| self.0.get(&(block, who)).is_some_and(|&passed| clock < passed))
    }

    fn learn(&mut self, block: u32, thread: u32, clock: u32) {
        if thread == ALL {
            // What is known of all threads need not be kept of one.
            let known: Vec<_> =
                self.0.range((block, 0)..(block, ALL)).filter(|&(_, &of)| of <= clock).map(|(&who, _)| who).collect();
            known.iter().for_each(|who| _ = self.0.remove(who));
        } else if self.0.get(&(block, ALL)).is_some_and(|&of_all| clock <= of_all) {
            return;
        }
        let passed = self.0.entry((block, thread)).or_insert(0);
        *passed = clock.max(*passed);
    }

    fn join(&mut self, other: &Self) {
        for (&(block, thread), &clock) in &other.0 {
            self.learn(block, thread, clock);
        }
    }
}

/// Joins what another knows.
fn join(known: &mut Rc<Known>, other: &Rc<Known>) {
    if known.0.is_empty() {
        *known = Rc::clone(other);
    } else if !Rc::ptr_eq(known, other) && !other.0.is_empty() {
        Rc::make_mut(known).join(other);
    }
}

/// Notes that a thread keeps before it joins them.
const NOTES: usize = 64;

/// What one thread knows and has done since the last barrier of its block.
#[derive(Clone, Default)]
pub(super) struct Insight {
    /// What it has learnt, with all that the block knows.
    known: Option<Rc<Known>>,
    /// Notes of values that it has read, to be known after its next fence.
    read: Vec<Rc<Known>>,
    /// The note of its last fence.
    fenced: Option<Rc<Known>>,
}

/// What all threads of a block know, and have done before the last barrier.
#[derive(Default)]
pub(super) struct Common {
    known: Rc<Known>,
    read: Rc<Known>,
    fenced: Option<Rc<Known>>,
}

/// The clocks that a fence takes note of.
pub(super) struct Passed {
    pub(super) block: u32,
    pub(super) thread: u32,
    /// The block's clock at its last barrier, and the thread's own.
    pub(super) at_barrier: u32,
    pub(super) clock: u32,
    /// The clocks that the thread knows of its warp's lanes.
    pub(super) of_warp: [u32; 32],
}

impl Insight {
    /// Whether the thread knows an access of a thread at a clock.
    #[inline(always)]
    pub(super) fn covers(&self, common: &Common, block: u32, thread: u32, clock: u32) -> bool {
        self.known.as_ref().unwrap_or(&common.known).covers(block, thread, clock)
    }

    /// Whether it has anything to share at a barrier.
    pub(super) fn is_new(&self) -> bool {
        self.known.is_some() || self.fenced.is_some() || !self.read.is_empty()
    }

    /// The note that a store leaves.
    pub(super) fn note(&self, common: &Common) -> Option<Rc<Known>> {
        self.fenced.as_ref().or(common.fenced.as_ref()).map(Rc::clone)
    }

    fn takes(&mut self, note: &Rc<Known>) {
        if self.read.last().is_some_and(|last| Rc::ptr_eq(last, note)) {
            return;
        }
        if self.read.len() == NOTES {
            let joined = self.joined();
            self.read = vec![joined];
        }
        self.read.push(Rc::clone(note));
    }

    /// All notes that it has read, as one.
    fn joined(&self) -> Rc<Known> {
        let mut all = Rc::default();
        self.read.iter().for_each(|note| join(&mut all, note));
        all
    }

    /// Knows what the values say that it has read.
    pub(super) fn acquire(&mut self, common: &Common) {
        if self.read.is_empty() && common.read.0.is_empty() {
            return;
        }
        let known = self.known.get_or_insert_with(|| Rc::clone(&common.known));
        join(known, &common.read);
        self.read.drain(..).for_each(|note| join(known, &note));
    }

    /// The note of a release after which clocks are as given.
    pub(super) fn release(&self, common: &Common, passed: &Passed) -> Rc<Known> {
        let mut known = Known::clone(self.known.as_ref().unwrap_or(&common.known));
        known.learn(passed.block, ALL, passed.at_barrier);
        for (lane, &clock) in (0..).zip(&passed.of_warp) {
            if clock > passed.at_barrier {
                known.learn(passed.block, passed.thread / 32 * 32 + lane, clock);
            }
        }
        known.learn(passed.block, passed.thread, passed.clock);
        Rc::new(known)
    }

    /// A fence: [`Self::acquire`] came before.
    pub(super) fn fence(&mut self, common: &Common, passed: &Passed) {
        self.fenced = Some(self.release(common, passed));
    }
}

impl Common {
    /// At a barrier: all threads know what one of them knows, and a fence before it is one for all.
    pub(super) fn share(&mut self, insight: &mut Insight) {
        if let Some(known) = insight.known.take() {
            join(&mut self.known, &known);
        }
        for note in insight.read.drain(..) {
            join(&mut self.read, &note);
        }
        if let Some(note) = insight.fenced.take() {
            join(self.fenced.get_or_insert_default(), &note);
        }
    }

    /// At a warp's barrier: the same among some threads.
    pub(super) fn share_among(&self, all: &mut Insight, insight: &Insight) {
        if let Some(known) = &insight.known {
            join(all.known.get_or_insert_with(|| Rc::clone(&self.known)), known);
        }
        if !insight.read.is_empty() {
            all.read.resize_with(1, Rc::default);
            join(&mut all.read[0], &insight.joined());
        }
        if let Some(note) = &insight.fenced {
            join(all.fenced.get_or_insert_with(|| self.fenced.clone().unwrap_or_default()), note);
        }
    }
}

/// The notes at addresses of atomic operations.
#[derive(Default)]
pub(super) struct Notes(HashMap<usize, Rc<Known>>);

impl Notes {
    /// A store replaces the note by its own.
    pub(super) fn store(&mut self, at: usize, note: Option<Rc<Known>>) {
        match note {
            Some(note) => _ = self.0.insert(at, note),
            None if self.0.is_empty() => {}
            None => _ = self.0.remove(&at),
        }
    }

    /// A change takes the note along, and adds its own.
    pub(super) fn change(&mut self, at: usize, insight: &mut Insight, note: Option<Rc<Known>>) {
        if note.is_none() && self.0.is_empty() {
            return;
        }
        if let Some(found) = self.0.get_mut(&at) {
            insight.takes(found);
            if let Some(note) = note {
                join(found, &note);
            }
        } else if let Some(note) = note {
            self.0.insert(at, note);
        }
    }

    /// A load takes the note along.
    pub(super) fn load(&self, at: usize, insight: &mut Insight) {
        if let Some(found) = self.0.get(&at) {
            insight.takes(found);
        }
    }
}
