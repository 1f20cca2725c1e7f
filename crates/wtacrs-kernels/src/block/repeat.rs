//! Loops that are written out before the compiler sees them.
//!
//! LLVM gives up unrolling large bodies, and an array that a loop's variable indexes then moves to local memory: sums of
//! a product would leave the registers.

/// `repeat!(I in 0 1 2 => { … })`: the block once for each number, with the constant I: u32 in it.
macro_rules! repeat {
    ($name:ident in $($value:literal)* => $body:block) => {
        $({
            #[allow(dead_code)]
            const $name: u32 = $value;
            $body
        })*
    };
}

pub(crate) use repeat;
