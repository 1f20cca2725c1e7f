//! The matrix units, by the PTX ISA's fragment tables.

use super::math::f16_to_f32;
use super::shared::place_of;
use crate::emulator::fault::{Fault, Operation, Place};
use crate::emulator::machine::{SHARED_BASE, current};
use crate::emulator::rendezvous::{Slot, meet};
use crate::emulator::shadow::Access;
use crate::math::bf16_to_f32;
use crate::shared::Address;
use crate::warp::FULL;
use std::panic::Location;

/// Loads `matrices` matrices of 8 × 8 elements of 16 bits.
#[track_caller]
#[inline(always)]
fn load(operation: Operation, row: Address, matrices: u32, transposed: bool) -> [u32; 10] {
    let place = Place(Location::caller());
    let thread = current();
    if thread.lane() < 8 * matrices {
        let offset = place_of(thread, row.0, SHARED_BASE + thread.block().shared_bytes, 16, place);
        thread.block().shadow.access(thread, offset, 16, Access::Read, place);
    }
    meet(operation, FULL, [0, 0, 0, 0, 0, 0, 0, 0, 0, row.0], |slots, _| {
        deal(slots, matrices, transposed);
        Ok::<_, Fault>(())
    })
}

/// Gives every lane its two elements of each matrix.
fn deal(slots: &mut [Slot; 32], matrices: u32, transposed: bool) {
    let shared = current().block().shared();
    for matrix in 0..matrices as usize {
        let mut elements = [[0u16; 8]; 8];
        for (row, elements) in elements.iter_mut().enumerate() {
            let offset = slots[8 * matrix + row].load[9] - SHARED_BASE;
            // SAFETY: 16 bytes within the block's, aligned, as each lane has checked its own row.
            *elements = unsafe { shared.add(offset as usize).cast::<[u16; 8]>().read() };
        }
        for (lane, slot) in slots.iter_mut().enumerate() {
            let (g, t) = (lane / 4, lane % 4);
            let [low, high] = if transposed {
                [elements[2 * t][g], elements[2 * t + 1][g]]
            } else {
                [elements[g][2 * t], elements[g][2 * t + 1]]
            };
            slot.load[matrix] = u32::from(high) << 16 | u32::from(low);
        }
    }
}

#[track_caller]
#[inline(always)]
pub(crate) unsafe fn load_x4(row: Address) -> [u32; 4] {
    let [a, b, c, d, ..] = load(Operation::LoadX4, row, 4, false);
    [a, b, c, d]
}

#[track_caller]
#[inline(always)]
pub(crate) unsafe fn load_x4_transposed(row: Address) -> [u32; 4] {
    let [a, b, c, d, ..] = load(Operation::LoadX4Transposed, row, 4, true);
    [a, b, c, d]
}

#[track_caller]
#[inline(always)]
pub(crate) unsafe fn load_x2(row: Address) -> [u32; 2] {
    let [a, b, ..] = load(Operation::LoadX2, row, 2, false);
    [a, b]
}

#[track_caller]
#[inline(always)]
pub(crate) unsafe fn load_x2_transposed(row: Address) -> [u32; 2] {
    let [a, b, ..] = load(Operation::LoadX2Transposed, row, 2, true);
    [a, b]
}

/// Meets with A, B and C, and takes D.
#[track_caller]
#[inline(always)]
fn multiply(operation: Operation, a: [u32; 4], b: [u32; 2], c: [f32; 4], work: fn(&mut [Slot; 32])) -> [f32; 4] {
    let [c0, c1, c2, c3] = c.map(f32::to_bits);
    let load = meet(operation, FULL, [a[0], a[1], a[2], a[3], b[0], b[1], c0, c1, c2, c3], |slots, _| {
        work(slots);
        Ok(())
    });
    [load[6], load[7], load[8], load[9]].map(f32::from_bits)
}

/// D = C + A·B, of which every lane has two pairs of elements.
#[inline(always)]
fn accumulate<const K: usize>(slots: &mut [Slot; 32], a: &[[f32; K]; 16], b: &[[f32; 8]; K]) {
    let mut sums = [[0.0f32; 8]; 16];
    for (lane, slot) in slots.iter().enumerate() {
        let (g, t) = (lane / 4, lane % 4);
        let [.., c0, c1, c2, c3] = slot.load.map(f32::from_bits);
        [sums[g][2 * t], sums[g][2 * t + 1], sums[g + 8][2 * t], sums[g + 8][2 * t + 1]] = [c0, c1, c2, c3];
    }
    for row in 0..16 {
        let mut row_sums = sums[row];
        for k in 0..K {
            for column in 0..8 {
                row_sums[column] += a[row][k] * b[k][column];
            }
        }
        sums[row] = row_sums;
    }
    for (lane, slot) in slots.iter_mut().enumerate() {
        let (g, t) = (lane / 4, lane % 4);
        let d = [sums[g][2 * t], sums[g][2 * t + 1], sums[g + 8][2 * t], sums[g + 8][2 * t + 1]];
        slot.load[6..].copy_from_slice(&d.map(f32::to_bits));
    }
}

/// m16n8k16 of 16-bit elements.
#[inline(always)]
fn halves(slots: &mut [Slot; 32], widened: impl Fn(u16) -> f32) {
    let mut a = [[0.0; 16]; 16];
    let mut b = [[0.0; 8]; 16];
    for (lane, slot) in slots.iter().enumerate() {
        let (g, t) = (lane / 4, lane % 4);
        let pair = |i: usize| [widened(slot.load[i] as u16), widened((slot.load[i] >> 16) as u16)];
        for i in 0..4 {
            let (row, column) = (g + i % 2 * 8, 2 * t + i / 2 * 8);
            [a[row][column], a[row][column + 1]] = pair(i);
        }
        for i in 0..2 {
            let row = 2 * t + i * 8;
            [b[row][g], b[row + 1][g]] = pair(4 + i);
        }
    }
    accumulate(slots, &a, &b);
}

/// m16n8k8 of tf32.
fn tf32(slots: &mut [Slot; 32]) {
    let mut a = [[0.0; 8]; 16];
    let mut b = [[0.0; 8]; 8];
    for (lane, slot) in slots.iter().enumerate() {
        let (g, t) = (lane / 4, lane % 4);
        let element = |i: usize| f32::from_bits(slot.load[i] & !0x1FFF);
        for i in 0..4 {
            a[g + i % 2 * 8][t + i / 2 * 4] = element(i);
        }
        for i in 0..2 {
            b[t + i * 4][g] = element(4 + i);
        }
    }
    accumulate(slots, &a, &b);
}

#[track_caller]
#[inline(always)]
pub(crate) fn mma_bf16(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    multiply(Operation::MmaBf16, a, b, c, |slots| halves(slots, bf16_to_f32))
}

#[track_caller]
#[inline(always)]
pub(crate) fn mma_f16(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    multiply(Operation::MmaF16, a, b, c, |slots| halves(slots, f16_to_f32))
}

#[track_caller]
#[inline(always)]
pub(crate) fn mma_tf32(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    multiply(Operation::MmaTf32, a, b, c, tf32)
}
