//! Shuffles, votes and reductions, worked out by the last lane to arrive.

use crate::emulator::fault::{Culprit, Fault, MaskMisuse, Operation};
use crate::emulator::machine::current;
use crate::emulator::rendezvous::{Slot, lanes, meet};

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

/// Who gives to `lane`, which names `by`.
type Source = fn(lane: u32, by: u32) -> u32;

#[track_caller]
#[inline(always)]
fn exchange<T: Shuffle>(operation: Operation, mask: u32, value: T, by: u32, source: Source) -> T {
    let [low, high] = value.to_bits();
    let load =
        meet(operation, mask, [low, high, by, 0, 0, 0, 0, 0, 0, 0], |slots, mask| deal(slots, mask, operation, source));
    T::from_bits([load[0], load[1]])
}

fn deal(slots: &mut [Slot; 32], mask: u32, operation: Operation, source: Source) -> Result<(), Fault> {
    let given = slots.each_ref().map(|slot| [slot.load[0], slot.load[1]]);
    for lane in lanes(mask) {
        let slot = &mut slots[lane as usize];
        let by = slot.load[2];
        let refuse = |misuse| {
            let thread = current();
            let culprit = Culprit { thread: thread.index - thread.lane() + lane, ..thread.culprit(slot.place) };
            Err(Fault::LaneMask { culprit, operation, misuse })
        };
        if operation != Operation::Shuffle && by >= 32 {
            return refuse(MaskMisuse::Distance { distance: by });
        }
        let from = source(lane, by);
        if mask >> from & 1 == 0 {
            return refuse(MaskMisuse::SourceMissing { mask, lane: from });
        }
        [slot.load[0], slot.load[1]] = given[from as usize];
    }
    Ok(())
}

#[track_caller]
#[inline(always)]
pub(crate) fn shuffle<T: Shuffle>(mask: u32, value: T, source: u32) -> T {
    exchange(Operation::Shuffle, mask, value, source, |_, by| by % 32)
}

#[track_caller]
#[inline(always)]
pub(crate) fn shuffle_xor<T: Shuffle>(mask: u32, value: T, flip: u32) -> T {
    exchange(Operation::ShuffleXor, mask, value, flip, |lane, by| lane ^ by)
}

#[track_caller]
#[inline(always)]
pub(crate) fn shuffle_up<T: Shuffle>(mask: u32, value: T, distance: u32) -> T {
    exchange(Operation::ShuffleUp, mask, value, distance, |lane, by| lane.checked_sub(by).unwrap_or(lane))
}

#[track_caller]
#[inline(always)]
pub(crate) fn shuffle_down<T: Shuffle>(mask: u32, value: T, distance: u32) -> T {
    exchange(Operation::ShuffleDown, mask, value, distance, |lane, by| if lane + by < 32 { lane + by } else { lane })
}

/// What all lanes take is a fold of what each brings.
#[track_caller]
#[inline(always)]
fn fold(operation: Operation, mask: u32, value: u32, step: fn(u32, u32, u32) -> u32, start: u32) -> u32 {
    let load = meet(operation, mask, [value, 0, 0, 0, 0, 0, 0, 0, 0, 0], |slots, mask| {
        let all = lanes(mask).fold(start, |all, lane| step(all, lane, slots[lane as usize].load[0]));
        for lane in lanes(mask) {
            slots[lane as usize].load[0] = all;
        }
        Ok(())
    });
    load[0]
}

#[track_caller]
#[inline(always)]
pub(crate) fn ballot(mask: u32, predicate: bool) -> u32 {
    fold(Operation::Ballot, mask, u32::from(predicate), |all, lane, holds| all | holds << lane, 0)
}

#[track_caller]
#[inline(always)]
pub(crate) fn reduce_add(mask: u32, value: u32) -> u32 {
    fold(Operation::ReduceAdd, mask, value, |all, _, value| all.wrapping_add(value), 0)
}

#[track_caller]
#[inline(always)]
pub(crate) fn reduce_min(mask: u32, value: u32) -> u32 {
    fold(Operation::ReduceMin, mask, value, |all, _, value| all.min(value), u32::MAX)
}

#[track_caller]
#[inline(always)]
pub(crate) fn reduce_max(mask: u32, value: u32) -> u32 {
    fold(Operation::ReduceMax, mask, value, |all, _, value| all.max(value), 0)
}

#[track_caller]
#[inline(always)]
pub(crate) fn reduce_or(mask: u32, value: u32) -> u32 {
    fold(Operation::ReduceOr, mask, value, |all, _, value| all | value, 0)
}
