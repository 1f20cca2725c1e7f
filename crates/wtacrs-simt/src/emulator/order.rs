//! Chooses which of the ready threads runs next, from a seed, by one of several strategies.

/// Chooses the next thread.
pub(super) struct Order {
    state: u64,
    strategy: Strategy,
}

/// How far one warp runs before others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strategy {
    /// The lowest index first.
    Indices,
    /// The highest index first.
    Reverse,
    /// One warp as far as it can, lanes in random order.
    Deep,
    /// Any ready thread.
    Even,
}

impl Order {
    pub(super) fn new(seed: u64, block: u64) -> Self {
        let strategy = match seed {
            0 => Strategy::Indices,
            _ => match seed % 4 {
                0 => Strategy::Reverse,
                1 => Strategy::Even,
                2 => Strategy::Deep,
                _ => Strategy::Even,
            },
        };
        Self { state: mixed(seed ^ mixed(block.wrapping_add(0x9E37_79B9_7F4A_7C15))), strategy }
    }

    /// A warp of a mask that is not empty; `last` was chosen before.
    pub(super) fn warp(&mut self, ready: u32, last: u32) -> u32 {
        match self.strategy {
            Strategy::Deep if ready >> last & 1 != 0 => last,
            _ => self.bit(ready),
        }
    }

    /// A lane of a mask that is not empty.
    pub(super) fn lane(&mut self, ready: u32) -> u32 {
        self.bit(ready)
    }

    /// A number below `count`, or 0.
    pub(super) fn below(&mut self, count: usize) -> usize {
        match self.strategy {
            Strategy::Indices => 0,
            Strategy::Reverse => count.saturating_sub(1),
            _ => (self.next() % count.max(1) as u64) as usize,
        }
    }

    /// Whether another block runs now, though this one need not wait.
    pub(super) fn leaves(&mut self) -> bool {
        self.strategy == Strategy::Even && self.next().is_multiple_of(64)
    }

    /// Whether a relaxed store reaches other blocks later.
    pub(super) fn delays(&mut self) -> bool {
        self.strategy == Strategy::Even && self.next().is_multiple_of(2)
    }

    /// Whether a copy reads its source now, at its issue or at a commit after it.
    pub(super) fn reads_early(&mut self) -> bool {
        match self.strategy {
            Strategy::Indices => false,
            Strategy::Reverse => true,
            Strategy::Deep | Strategy::Even => self.next().is_multiple_of(4),
        }
    }

    /// Whether a thread pauses now, though it need not.
    pub(super) fn pauses(&mut self) -> bool {
        self.strategy == Strategy::Even && self.next().is_multiple_of(4)
    }

    fn bit(&mut self, ready: u32) -> u32 {
        match self.strategy {
            Strategy::Indices => ready.trailing_zeros(),
            Strategy::Reverse => 31 - ready.leading_zeros(),
            _ => {
                let turn = self.next() as u32 % 32;
                (ready.rotate_right(turn).trailing_zeros() + turn) % 32
            }
        }
    }

    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed(self.state)
    }
}

fn mixed(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}
