//! Shuffles, votes and reductions. The last lane to arrive does the work of all.

use super::rendezvous::meet;
use crate::emulator::fault::{Culprit, Fault, MaskMisuse, Operation};
use crate::emulator::lanes::{Slots, lanes};
use crate::emulator::machine::current;

/// A value that fits two registers.
pub trait Shuffle {
    fn to_bits(self) -> [u32; 2];
    fn from_bits(bits: [u32; 2]) -> Self;
}

macro_rules! shuffled {
    ($($of:ty, $value:ident => $to:expr, $bits:ident => $from:expr;)*) => {
        $(
            impl Shuffle for $of {
                #[inline(always)]
                fn to_bits(self) -> [u32; 2] {
                    let $value = self;
                    $to
                }

                #[inline(always)]
                fn from_bits($bits: [u32; 2]) -> Self {
                    $from
                }
            }
        )*
    };
}

shuffled! {
    u32, x => [x, 0], bits => bits[0];
    i32, x => [x as u32, 0], bits => bits[0] as i32;
    f32, x => [x.to_bits(), 0], bits => f32::from_bits(bits[0]);
    u64, x => [x as u32, (x >> 32) as u32], bits => u64::from(bits[1]) << 32 | u64::from(bits[0]);
    f64, x => Shuffle::to_bits(x.to_bits()), bits => f64::from_bits(Shuffle::from_bits(bits));
}

/// The lane that `lane` reads from, given its argument `by`.
type Source = fn(lane: u32, by: u32) -> u32;

#[track_caller]
#[inline(always)]
fn exchange<T: Shuffle>(operation: Operation, mask: u32, value: T, by: u32, source: Source) -> T {
    let [low, high] = value.to_bits();
    let wide = size_of::<T>() == 8;
    T::from_bits(meet(operation, mask, [low, high, by], |slots, mask| deal(slots, mask, operation, wide, source)))
}

#[inline(always)]
fn deal(slots: &mut Slots, mask: u32, operation: Operation, wide: bool, source: Source) -> Result<(), Fault> {
    let [low, high, by, ..] = &slots.words;
    let mut taken = [*low, *high];
    for lane in lanes(mask) {
        let by = by[lane as usize];
        let from = source(lane, by);
        if operation != Operation::Shuffle && by >= 32 {
            return Err(refuse(slots, operation, lane, MaskMisuse::Distance { distance: by }));
        }
        if mask >> from & 1 == 0 {
            return Err(refuse(slots, operation, lane, MaskMisuse::SourceMissing { mask, lane: from }));
        }
        taken[0][lane as usize] = low[from as usize % 32];
        if wide {
            taken[1][lane as usize] = high[from as usize % 32];
        }
    }
    [slots.words[0], slots.words[1]] = taken;
    Ok(())
}

#[cold]
fn refuse(slots: &Slots, operation: Operation, lane: u32, misuse: MaskMisuse) -> Fault {
    let thread = current();
    let whose = thread.index - thread.lane() + lane;
    let culprit = Culprit { thread: whose, ..thread.culprit(slots.places[lane as usize]) };
    Fault::LaneMask { culprit, operation, misuse }
}

#[track_caller]
#[inline(never)]
pub(crate) fn shuffle<T: Shuffle>(mask: u32, value: T, source: u32) -> T {
    exchange(Operation::Shuffle, mask, value, source, |_, by| by % 32)
}

#[track_caller]
#[inline(never)]
pub(crate) fn shuffle_xor<T: Shuffle>(mask: u32, value: T, flip: u32) -> T {
    exchange(Operation::ShuffleXor, mask, value, flip, |lane, by| lane ^ by)
}

#[track_caller]
#[inline(never)]
pub(crate) fn shuffle_up<T: Shuffle>(mask: u32, value: T, distance: u32) -> T {
    exchange(Operation::ShuffleUp, mask, value, distance, |lane, by| lane.checked_sub(by).unwrap_or(lane))
}

#[track_caller]
#[inline(never)]
pub(crate) fn shuffle_down<T: Shuffle>(mask: u32, value: T, distance: u32) -> T {
    exchange(Operation::ShuffleDown, mask, value, distance, |lane, by| if lane + by < 32 { lane + by } else { lane })
}

/// Every lane gets the fold of all lanes' values.
#[track_caller]
#[inline(always)]
fn fold(operation: Operation, mask: u32, value: u32, step: fn(u32, u32, u32) -> u32, start: u32) -> u32 {
    let [all] = meet(operation, mask, [value], |slots, mask| {
        let all = lanes(mask).fold(start, |all, lane| step(all, lane, slots.words[0][lane as usize]));
        for lane in lanes(mask) {
            slots.words[0][lane as usize] = all;
        }
        Ok(())
    });
    all
}

#[track_caller]
#[inline(never)]
pub(crate) fn ballot(mask: u32, predicate: bool) -> u32 {
    fold(Operation::Ballot, mask, u32::from(predicate), |all, lane, holds| all | holds << lane, 0)
}

#[track_caller]
#[inline(never)]
pub(crate) fn reduce_add(mask: u32, value: u32) -> u32 {
    fold(Operation::ReduceAdd, mask, value, |all, _, value| all.wrapping_add(value), 0)
}

#[track_caller]
#[inline(never)]
pub(crate) fn reduce_min(mask: u32, value: u32) -> u32 {
    fold(Operation::ReduceMin, mask, value, |all, _, value| all.min(value), u32::MAX)
}

#[track_caller]
#[inline(never)]
pub(crate) fn reduce_max(mask: u32, value: u32) -> u32 {
    fold(Operation::ReduceMax, mask, value, |all, _, value| all.max(value), 0)
}

#[track_caller]
#[inline(never)]
pub(crate) fn reduce_or(mask: u32, value: u32) -> u32 {
    fold(Operation::ReduceOr, mask, value, |all, _, value| all | value, 0)
}
