//! Pivotal sampling: a tree of duels, level by level, as `WtaPivotal` of wtacrs-core numbers them.
//!
//! A block plays the subtree over its own pairs; the subtrees' roots are told to all blocks, each of which plays the few
//! duels above them again and notes what concerns its own pairs. Levels of many nodes lie in scratch, the others in
//! shared memory; on each level the two alternate between two places, so that one barrier separates them.

use super::layout::SHARED_NODES;
use super::problem::Problem;
use crate::kernel::team::{ROOMS, Team};
use wtacrs_core::chance::{Stream, happens};
use wtacrs_core::duel::Duel;
use wtacrs_core::threshold::Threshold;
use wtacrs_simt::index::{block_threads, thread};
use wtacrs_simt::memory::{load, store};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::barrier;

/// The pair that is still in, and its mass; none if the mass is zero.
#[derive(Clone, Copy)]
struct Node {
    mass: u64,
    pair: u32,
}

const NOBODY: Node = Node { mass: 0, pair: 0 };

/// The levels' places: `masses` and `pairs` of even levels, then of odd ones.
#[derive(Clone, Copy)]
struct Places {
    /// Nodes of an even level in scratch, over all blocks.
    even: u32,
    /// The block's first place of an even level; half of it of an odd one.
    first: u32,
    masses: *mut u64,
    pairs: *mut u32,
    shared_masses: Shared<u64>,
    shared_pairs: Shared<u32>,
    /// Nodes of each of the two levels in shared memory.
    room: u32,
}

impl Places {
    #[inline(always)]
    fn new(problem: &Problem, first_pair: u32) -> Self {
        let (even, odd) = (problem.pairs.div_ceil(2), problem.pairs.div_ceil(4));
        let masses: *mut u64 = problem.layout.own.cast();
        let room = shared_nodes(problem.team.range, problem.team.blocks);
        let shared_masses = Shared::new(ROOMS, 2 * room);
        Self {
            even,
            first: first_pair / 2,
            masses,
            pairs: masses.wrapping_add((even + odd) as usize).cast(),
            shared_masses,
            shared_pairs: Shared::new(ROOMS + 16 * room, 2 * room),
            room,
        }
    }

    /// Where node j of a level of `count` nodes lies in scratch.
    #[inline(always)]
    fn at(&self, level: u32, j: u32) -> usize {
        let place = if level.is_multiple_of(2) { self.first + j } else { self.even + self.first / 2 + j };
        place as usize
    }

    #[inline(always)]
    fn read(&self, level: u32, count: u32, j: u32) -> Node {
        if count <= self.room {
            let j = level % 2 * self.room + j;
            // SAFETY: less than `room` nodes on each of two levels, written before the last barrier.
            unsafe { Node { mass: self.shared_masses.read(j), pair: self.shared_pairs.read(j) } }
        } else {
            let at = self.at(level, j);
            // SAFETY: no more nodes than half (even) or a quarter (odd) of the pairs, written before the last barrier.
            unsafe { Node { mass: load(self.masses.wrapping_add(at)), pair: load(self.pairs.wrapping_add(at)) } }
        }
    }

    #[inline(always)]
    fn write(&self, level: u32, count: u32, j: u32, node: Node) {
        if count <= self.room {
            let j = level % 2 * self.room + j;
            // SAFETY: as for `read`; what the place held was read before the last barrier.
            unsafe {
                self.shared_masses.write(j, node.mass);
                self.shared_pairs.write(j, node.pair);
            }
        } else {
            let at = self.at(level, j);
            // SAFETY: as above.
            unsafe {
                store(self.masses.wrapping_add(at), node.mass);
                store(self.pairs.wrapping_add(at), node.pair);
            }
        }
    }
}

/// Nodes of each of two levels that a block keeps in shared memory: all above the roots of the blocks, and as many of
/// its own as fit.
#[inline(always)]
pub(super) const fn shared_nodes(range: u32, blocks: u32) -> u32 {
    let nodes = if range > blocks { range / 2 } else { blocks.div_ceil(2) };
    if nodes < SHARED_NODES { nodes } else { SHARED_NODES }
}

/// What all duels share.
struct Rules {
    stream: Stream,
    unit: u64,
    /// Duel j of level l has the index N/2^(l+1) + j, with N the least power of two ≥ n.
    leaves: u64,
}

/// Counts the winners and the pairs that their duels select.
#[inline(always)]
pub(super) fn select(problem: &mut Problem, threshold: &Threshold) {
    let layout = problem.layout;
    let (first, end) = problem.team.bounds();
    if threshold.tail_places == 0 {
        problem.run.for_each(
            |pair| layout.weight(pair),
            |pair, weight| layout.set_count(pair, u32::from(threshold.is_winner(weight))),
        );
        return;
    }
    let rules = Rules {
        stream: problem.stream,
        unit: threshold.tail_mass,
        leaves: u64::from(problem.pairs).next_power_of_two(),
    };
    let places = Places::new(problem, first);
    let selects = |pair: u32| {
        if first <= pair && pair < end {
            layout.set_count(pair, 1);
        }
    };
    // One loop for both trees, so that there is one copy of the code of a duel.
    let mut tree = Tree { base: 0, first, nodes: end - first };
    loop {
        let node = |team: &Team, j: u32| {
            if tree.base > 0 {
                let [mass, pair] = team.told(j, [0; 2]);
                return Node { mass, pair: pair as u32 };
            }
            let pair = first + j;
            let weight = layout.weight(pair);
            let wins = threshold.is_winner(weight);
            layout.set_count(pair, u32::from(wins));
            Node { mass: if wins { 0 } else { threshold.mass(weight) }, pair }
        };
        let root = play(&rules, &places, tree, |j| node(&problem.team, j), selects);
        if tree.base > 0 || problem.team.blocks == 1 {
            return;
        }
        problem.team.tell([root.mass, u64::from(root.pair)]);
        tree = Tree { base: problem.team.range.trailing_zeros(), first: 0, nodes: problem.team.blocks };
    }
}

/// A part of the whole tree: over so many nodes of level `base`, of which the first covers the pairs from `first` on.
#[derive(Clone, Copy)]
struct Tree {
    base: u32,
    first: u32,
    nodes: u32,
}

/// Plays all duels of a tree; the node that is left.
#[inline(always)]
fn play(rules: &Rules, places: &Places, tree: Tree, node: impl Fn(u32) -> Node, selects: impl Fn(u32)) -> Node {
    let mut count = tree.nodes;
    let mut level = 0;
    let mut first_duel = (rules.leaves + u64::from(tree.first)) >> tree.base;
    loop {
        let below = count;
        count = below.div_ceil(2);
        first_duel /= 2;
        let read = |j: u32| {
            if j >= below {
                NOBODY
            } else if level == 0 {
                node(j)
            } else {
                places.read(level - 1, below, j)
            }
        };
        let mut j = thread();
        while j < count {
            let index = first_duel + u64::from(j);
            places.write(level, count, j, duel(rules, index, read(2 * j), read(2 * j + 1), &selects));
            j += block_threads();
        }
        barrier();
        if count <= 1 {
            return if count == 1 { places.read(level, 1, 0) } else { NOBODY };
        }
        level += 1;
    }
}

#[inline(always)]
fn duel(rules: &Rules, index: u64, a: Node, b: Node, selects: impl Fn(u32)) -> Node {
    if a.mass == 0 || b.mass == 0 {
        return if b.mass == 0 { a } else { b };
    }
    let duel = Duel::new(a.mass, b.mass, rules.unit);
    let first_hits = happens(rules.stream.bits(index), duel.first, duel.whole);
    let (stays, leaves) = if duel.first_stays(first_hits) { (a, b) } else { (b, a) };
    if duel.selects {
        selects(leaves.pair);
    }
    Node { mass: duel.mass, pair: stays.pair }
}
