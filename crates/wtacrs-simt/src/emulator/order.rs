//! Which of the ready threads goes on: drawn from a seed, in several tempers.

/// Draws the next thread.
pub(super) struct Order {
    state: u64,
    temper: Temper,
}

/// How eagerly one warp goes on before others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Temper {
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
        let temper = match seed {
            0 => Temper::Indices,
            _ => match seed % 4 {
                0 => Temper::Reverse,
                1 => Temper::Even,
                2 => Temper::Deep,
                _ => Temper::Even,
            },
        };
        Self { state: mixed(seed ^ mixed(block.wrapping_add(0x9E37_79B9_7F4A_7C15))), temper }
    }

    /// One of the bits set in a mask that is not empty; `last` was drawn before.
    pub(super) fn warp(&mut self, ready: u32, last: u32) -> u32 {
        match self.temper {
            Temper::Deep if ready >> last & 1 != 0 => last,
            _ => self.bit(ready),
        }
    }

    /// One of the bits set in a mask that is not empty.
    pub(super) fn lane(&mut self, ready: u32) -> u32 {
        self.bit(ready)
    }

    /// Below `count`, or 0.
    pub(super) fn below(&mut self, count: usize) -> usize {
        match self.temper {
            Temper::Indices => 0,
            Temper::Reverse => count.saturating_sub(1),
            _ => (self.next() % count.max(1) as u64) as usize,
        }
    }

    /// Whether another block shall go on before this one must wait.
    pub(super) fn leaves(&mut self) -> bool {
        self.temper == Temper::Even && self.next().is_multiple_of(64)
    }

    /// Whether a thread shall pause where it need not.
    pub(super) fn pauses(&mut self) -> bool {
        self.temper == Temper::Even && self.next().is_multiple_of(4)
    }

    fn bit(&mut self, ready: u32) -> u32 {
        match self.temper {
            Temper::Indices => ready.trailing_zeros(),
            Temper::Reverse => 31 - ready.leading_zeros(),
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
