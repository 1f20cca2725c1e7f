//! Whether the process can have the memory that a call is about to take.
//!
//! Rust ends the process where it cannot. So calls whose arguments say how much they take ask for it first, all at once,
//! and give it back: a caller then hears of it by a status. What another thread takes in between is not seen.

use crate::boundary::status::WTACRS_STATUS_OUT_OF_MEMORY;
use crate::boundary::{Failure, Outcome};
use std::hint::black_box;

/// Less is not asked for: a process without it is at its end anyway.
const LEAST: usize = 1 << 20;

/// What calls take for each token at most: norms, a guess, weights in three forms, and marks of a design.
pub(crate) const PER_TOKEN: usize = 64;

/// What each thread takes at most that packs rows, beside a row in f32.
pub(crate) const PER_PACKING_THREAD: usize = 1 << 20;

/// Asks for parts of so many entries of so many bytes.
///
/// # Errors
///
/// OUT_OF_MEMORY.
pub(crate) fn check(what: &str, parts: &[(usize, usize)]) -> Outcome {
    let bytes = parts.iter().fold(0_usize, |sum, &(count, size)| sum.saturating_add(count.saturating_mul(size)));
    let mut room = Vec::<u8>::new();
    // Else the compiler may see that nothing is done with it, and ask nobody.
    if bytes < LEAST || black_box(&mut room).try_reserve_exact(bytes).is_ok() {
        return Ok(());
    }
    Err(Failure::new(WTACRS_STATUS_OUT_OF_MEMORY, format!("{what} takes {bytes} bytes, which the process cannot have")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_refused() {
        check("it", &[]).expect("nothing");
        check("it", &[(1000, 64), (1 << 20, 4)]).expect("a few megabytes");
        for parts in [&[(usize::MAX, 64)][..], &[(usize::MAX, 1), (1, 1)], &[(1 << 46, 1 << 14)]] {
            assert_eq!(check("it", parts).expect_err("too much").status, WTACRS_STATUS_OUT_OF_MEMORY);
        }
    }
}
