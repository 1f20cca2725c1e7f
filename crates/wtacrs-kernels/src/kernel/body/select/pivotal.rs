//! Pivotal sampling: a tree of duels, level by level, numbered as in `WtaPivotal` of wtacrs-core.
//!
//! A block plays the subtree over its own pairs, and publishes its root and how many pairs it has selected. Then every block
//! plays the few duels above the roots, marks the selected pairs of its own, and counts the others. So each block knows the
//! place of its pairs in the selection, and the blocks exchange nothing more.
//!
//! Levels of many nodes lie in scratch, those of few in shared memory. Levels alternate between two places, so that one
//! barrier separates them. From 32 duels on, a warp plays without barriers.

use super::emit::kept;
use super::problem::Problem;
use crate::kernel::body::block::scan::Prefix;
use crate::kernel::body::team::Team;
use crate::kernel::select::shared_nodes;
use crate::kernel::team::SHARED_BYTES;
use wtacrs_exact::duel::Duel;
use wtacrs_exact::random::{Stream, happens};
use wtacrs_exact::threshold::Threshold;
use wtacrs_simt::WARP;
use wtacrs_simt::index::{block_threads, lane, thread, warp};
use wtacrs_simt::memory::{load, store};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::{barrier, warp_barrier};
use wtacrs_simt::warp::{FULL, shuffle};

/// A pair that may still be selected, and its mass; no pair if the mass is zero.
#[derive(Clone, Copy)]
struct Node {
    mass: u64,
    pair: u32,
}

const EMPTY: Node = Node { mass: 0, pair: 0 };

/// Where the levels lie: `masses` and `pairs` of even levels, then of odd ones.
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
    /// Nodes that shared memory has for each of two levels.
    shared_nodes: u32,
}

impl Places {
    #[inline(always)]
    fn new(problem: &Problem, first_pair: u32) -> Self {
        let (even, odd) = (problem.pairs.div_ceil(2), problem.pairs.div_ceil(4));
        let masses: *mut u64 = problem.layout.own().cast();
        let shared_nodes = shared_nodes(problem.team.range, problem.team.blocks);
        let shared_masses = Shared::new(SHARED_BYTES, 2 * shared_nodes);
        Self {
            even,
            first: first_pair / 2,
            masses,
            pairs: masses.wrapping_add((even + odd) as usize).cast(),
            shared_masses,
            shared_pairs: Shared::new(SHARED_BYTES + 16 * shared_nodes, 2 * shared_nodes),
            shared_nodes,
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
        if count <= self.shared_nodes {
            let j = level % 2 * self.shared_nodes + j;
            // SAFETY: less than `shared_nodes` nodes on each of two levels, written before the last barrier.
            unsafe { Node { mass: self.shared_masses.read(j), pair: self.shared_pairs.read(j) } }
        } else {
            let at = self.at(level, j);
            // SAFETY: no more nodes than half (even) or a quarter (odd) of the pairs, written before the last barrier.
            unsafe { Node { mass: load(self.masses.wrapping_add(at)), pair: load(self.pairs.wrapping_add(at)) } }
        }
    }

    #[inline(always)]
    fn write(&self, level: u32, count: u32, j: u32, node: Node) {
        if count <= self.shared_nodes {
            let j = level % 2 * self.shared_nodes + j;
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

/// The rules of all duels.
struct Rules {
    stream: Stream,
    unit: u64,
    /// Duel j of level l has the index N/2^(l+1) + j, with N the least power of two ≥ n.
    leaves: u64,
}

/// Three counts in one word: of pairs in blocks before this one, of all pairs, and of this block's root. Where there is a
/// tail, fewer than 2^31 are selected.
const BEFORE: u64 = 1;
const OF_ALL: u64 = 1 << 32;
const OF_ROOT: u64 = 1 << 63;

/// Counts the winners and the pairs that duels select. Returns the place of the warp's pairs in the output.
#[inline(always)]
pub(super) fn select(problem: &mut Problem, stream: Stream, threshold: &Threshold) -> Prefix<u64> {
    let layout = problem.layout;
    let (first, end) = problem.team.bounds();
    let has_tail = threshold.tail_places > 0;
    let rules = Rules {
        stream,
        // Without a tail all masses are zero, and no duel selects.
        unit: threshold.tail_mass.max(1),
        leaves: u64::from(problem.pairs).next_power_of_two(),
    };
    let places = Places::new(problem, first);
    let mut root = EMPTY;
    let mut in_block = Prefix { before: 0, total: 0 };
    // Selected pairs: those that other blocks have published, and those that this thread's duels select. Of pairs before this
    // block's, of all, and of this block's root.
    let (mut published, mut played) = (0, 0);
    // One loop for both trees, so that there is one copy of the code of a duel.
    let mut tree = Tree { base: 0, first, nodes: end - first };
    loop {
        let mut node = |team: &Team, j: u32| {
            if tree.base > 0 {
                let [mass, pair_and_kept] = team.read(j, [0; 2]);
                let kept = pair_and_kept >> 32;
                published += OF_ALL * kept + if j < team.rank { BEFORE * kept } else { 0 };
                return Node { mass, pair: pair_and_kept as u32 };
            }
            let pair = first + j;
            let weight = layout.weight(pair);
            let wins = threshold.is_winner(weight);
            layout.set_count(pair, u32::from(wins));
            Node { mass: if wins { 0 } else { threshold.mass(weight) }, pair }
        };
        let selects = |pair: u32| {
            let is_own = first <= pair && pair < end;
            if is_own {
                layout.set_count(pair, 1);
            }
            if tree.base > 0 {
                played += OF_ALL + if pair < first { BEFORE } else { 0 } + if is_own { OF_ROOT } else { 0 };
            }
        };
        let mut left = EMPTY;
        if has_tail || tree.base > 0 {
            left = play(&rules, &places, tree, |j| node(&problem.team, j), selects);
        } else {
            problem.run.for_each(
                |pair| layout.weight(pair),
                |pair, weight| layout.set_count(pair, u32::from(threshold.is_winner(weight))),
            );
        }
        if tree.base > 0 {
            break;
        }
        root = left;
        let kept = kept(problem);
        in_block = problem.team.scan_in_block(kept, 0, u64::wrapping_add);
        if problem.team.blocks == 1 {
            return in_block;
        }
        problem.team.publish([root.mass, u64::from(root.pair) | in_block.total << 32]);
        tree = Tree { base: problem.team.range.trailing_zeros(), first: 0, nodes: problem.team.blocks };
    }
    let selected = problem.team.sum_in_block(published + played);
    // Without a tail no root is selected, and its bit belongs to the count of all.
    let (of_root, of_all) = if has_tail { (selected / OF_ROOT, selected % OF_ROOT) } else { (0, selected) };
    let root_before = if root.pair < problem.run.first() { of_root } else { 0 };
    Prefix { before: selected % OF_ALL + in_block.before + root_before, total: of_all / OF_ALL }
}

/// A part of the whole tree: over so many nodes of level `base`. The first node covers the pairs from `first` on.
#[derive(Clone, Copy)]
struct Tree {
    base: u32,
    first: u32,
    nodes: u32,
}

/// Plays all duels of a tree; returns the last node, in every thread.
#[inline(always)]
fn play(
    rules: &Rules,
    places: &Places,
    tree: Tree,
    mut leaf: impl FnMut(u32) -> Node,
    mut selects: impl FnMut(u32),
) -> Node {
    let mut below = tree.nodes;
    let mut level = 0;
    let mut first_duel = (rules.leaves + u64::from(tree.first)) >> tree.base;
    let mut node;
    let mut heap = Heap { level: 0, bits: 0 };
    // A warp has a lane for each leaf of a small tree, and needs no other level below its own.
    let is_small = tree.nodes <= WARP;
    loop {
        let count = if is_small { below } else { below.div_ceil(2) };
        first_duel >>= u32::from(!is_small);
        node = EMPTY;
        let mut read = |j: u32| {
            if j >= below {
                EMPTY
            } else if level == 0 {
                leaf(j)
            } else {
                places.read(level - 1, below, j)
            }
        };
        // Before the nodes are read: chance does not depend on them.
        if count <= WARP {
            heap = Heap::new(rules, first_duel);
        }
        let mut j = thread();
        while j < count {
            node = if is_small {
                read(j)
            } else {
                let bits = rules.stream.bits(first_duel + u64::from(j));
                duel(rules, bits, [read(2 * j), read(2 * j + 1)], &mut selects)
            };
            if count > WARP {
                places.write(level, count, j, node);
            }
            j += block_threads();
        }
        if count <= WARP {
            break;
        }
        barrier();
        below = count;
        level += 1;
    }
    if warp() == 0 {
        // The lane of a pair's last duel overwrites the count that the lane of its leaf has written.
        warp_barrier(FULL);
        node = heap.play(rules, node, &mut selects);
        if lane() == 1 {
            places.write(level, 1, 0, node);
        }
    }
    barrier();
    places.read(level, 1, 0)
}

/// A lane's part in the levels of at most 16 duels, which one warp plays.
///
/// Lanes are a heap: lane i plays one duel, of the nodes that lanes 2i and 2i + 1 hold; so of a level of 16 duels the first
/// is lane 16's, of one of 8 lane 8's, and the last is lane 1's.
struct Heap {
    /// The duels of the level on which this lane plays; none for lane 0.
    level: u32,
    /// Of this lane's duel.
    bits: u128,
}

impl Heap {
    /// Above a level whose duel j has the index `first_duel` + j.
    #[inline(always)]
    fn new(rules: &Rules, first_duel: u64) -> Self {
        let lane = lane();
        let level = (1_u32 << 31).checked_shr(lane.leading_zeros()).unwrap_or(0);
        let first_of_level = first_duel >> (lane.leading_zeros() - (WARP / 2).leading_zeros() + 1);
        Self { level, bits: rules.stream.bits(first_of_level + u64::from(lane - level)) }
    }

    /// Plays from the nodes of the level below, of which lane j has node j, or an empty one. The last node is then lane 1's.
    #[inline(always)]
    fn play(self, rules: &Rules, mut node: Node, mut selects: impl FnMut(u32)) -> Node {
        let mut duels = WARP / 2;
        while duels > 0 {
            let from = |child: u32| Node {
                mass: shuffle(FULL, node.mass, 2 * lane() + child),
                pair: shuffle(FULL, node.pair, 2 * lane() + child),
            };
            let children = [from(0), from(1)];
            if self.level == duels {
                node = duel(rules, self.bits, children, &mut selects);
            }
            duels /= 2;
        }
        node
    }
}

/// The node that a duel leaves. A node of mass zero always loses, and its duel selects no pair, so nodes without an opponent
/// need no rule of their own.
#[inline(always)]
fn duel(rules: &Rules, bits: u128, [a, b]: [Node; 2], selects: impl FnOnce(u32)) -> Node {
    let duel = Duel::new(a.mass, b.mass, rules.unit);
    let first_stays = duel.first_stays(happens(bits, duel.first, duel.whole));
    if duel.selects {
        selects(if first_stays { b.pair } else { a.pair });
    }
    Node { mass: duel.mass, pair: if first_stays { a.pair } else { b.pair } }
}
