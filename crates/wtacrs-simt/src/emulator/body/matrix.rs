//! The matrix units, after the PTX ISA's fragment tables.

use super::math::{bf16_to_f32, f16_to_f32};
use super::memory::shared_offset;
use super::rendezvous::meet;
use crate::emulator::fault::{Fault, Operation, Place};
use crate::emulator::lanes::Slots;
use crate::emulator::machine::{SHARED_BASE, current};
use crate::emulator::shadow::Access;
use crate::types::{Address, FULL};
use std::panic::Location;

/// Loads matrices of 8 × 8 elements of 16 bits.
#[track_caller]
#[inline(always)]
fn load<const MATRICES: usize>(operation: Operation, row: Address, transposed: bool) -> [u32; MATRICES] {
    let place = Place(Location::caller());
    let thread = current();
    if thread.lane() < 8 * MATRICES as u32 {
        let offset = shared_offset(thread, row.0, SHARED_BASE + thread.block().shared_bytes, 16, place);
        thread.access(offset, 16, Access::Read, place);
    }
    meet(operation, FULL, [row.0], |slots, _| {
        deal(slots, MATRICES, transposed);
        Ok::<_, Fault>(())
    })
}

/// Deals every lane its two elements of each matrix.
fn deal(slots: &mut Slots, matrices: usize, transposed: bool) {
    let shared = current().block().shared();
    let rows = slots.words[0];
    for (matrix, rows) in rows.chunks(8).take(matrices).enumerate() {
        let mut elements = [[0u16; 8]; 8];
        for (elements, row) in elements.iter_mut().zip(rows) {
            // SAFETY: 16 bytes within the block's, aligned, as each lane has checked its own row.
            *elements = unsafe { shared.add((row - SHARED_BASE) as usize).cast::<[u16; 8]>().read() };
        }
        for (lane, word) in slots.words[matrix].iter_mut().enumerate() {
            let (g, t) = (lane / 4, lane % 4);
            let [low, high] = if transposed {
                [elements[2 * t][g], elements[2 * t + 1][g]]
            } else {
                [elements[g][2 * t], elements[g][2 * t + 1]]
            };
            *word = u32::from(high) << 16 | u32::from(low);
        }
    }
}

#[track_caller]
#[inline(never)]
pub(crate) unsafe fn load_x4(row: Address) -> [u32; 4] {
    load(Operation::LoadX4, row, false)
}

#[track_caller]
#[inline(never)]
pub(crate) unsafe fn load_x4_transposed(row: Address) -> [u32; 4] {
    load(Operation::LoadX4Transposed, row, true)
}

#[track_caller]
#[inline(never)]
pub(crate) unsafe fn load_x2(row: Address) -> [u32; 2] {
    load(Operation::LoadX2, row, false)
}

#[track_caller]
#[inline(never)]
pub(crate) unsafe fn load_x2_transposed(row: Address) -> [u32; 2] {
    load(Operation::LoadX2Transposed, row, true)
}

/// Brings A, B and C to the other lanes, and returns D.
#[track_caller]
#[inline(always)]
fn multiply(operation: Operation, a: [u32; 4], b: [u32; 2], c: [f32; 4], work: fn(&mut Slots)) -> [f32; 4] {
    let [c0, c1, c2, c3] = c.map(f32::to_bits);
    let words = [c0, c1, c2, c3, a[0], a[1], a[2], a[3], b[0], b[1]];
    let sums: [u32; 4] = meet(operation, FULL, words, |slots, _| {
        work(slots);
        Ok(())
    });
    sums.map(f32::from_bits)
}

/// D = C + A·B, of which every lane has two pairs of elements, in words 0 to 3.
#[inline(always)]
fn accumulate<const K: usize>(slots: &mut Slots, a: &[[f32; K]; 16], b: &[[f32; 8]; K]) {
    let mut sums = [[0.0f32; 8]; 16];
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        for i in 0..4 {
            sums[g + i / 2 * 8][2 * t + i % 2] = f32::from_bits(slots.words[i][lane]);
        }
    }
    for (sums, a) in sums.iter_mut().zip(a) {
        let mut row = *sums;
        for (a, b) in a.iter().zip(b) {
            for (sum, b) in row.iter_mut().zip(b) {
                *sum += a * b;
            }
        }
        *sums = row;
    }
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        for i in 0..4 {
            slots.words[i][lane] = sums[g + i / 2 * 8][2 * t + i % 2].to_bits();
        }
    }
}

/// m16n8k16 of 16-bit elements.
#[inline(always)]
fn halves(slots: &mut Slots, widened: impl Fn(u16) -> f32) {
    let mut a = [[0.0; 16]; 16];
    let mut b = [[0.0; 8]; 16];
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        let pair = |word: u32| [widened(word as u16), widened((word >> 16) as u16)];
        for i in 0..4 {
            let (row, column) = (g + i % 2 * 8, 2 * t + i / 2 * 8);
            [a[row][column], a[row][column + 1]] = pair(slots.words[4 + i][lane]);
        }
        for i in 0..2 {
            let row = 2 * t + i * 8;
            [b[row][g], b[row + 1][g]] = pair(slots.words[8 + i][lane]);
        }
    }
    accumulate(slots, &a, &b);
}

/// m16n8k8 of tf32.
fn tf32(slots: &mut Slots) {
    let mut a = [[0.0; 8]; 16];
    let mut b = [[0.0; 8]; 8];
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        let element = |i: usize| f32::from_bits(slots.words[4 + i][lane] & !0x1FFF);
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
#[inline(never)]
pub(crate) fn mma_bf16(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    multiply(Operation::MmaBf16, a, b, c, |slots| halves(slots, bf16_to_f32))
}

#[track_caller]
#[inline(never)]
pub(crate) fn mma_f16(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    multiply(Operation::MmaF16, a, b, c, |slots| halves(slots, f16_to_f32))
}

#[track_caller]
#[inline(never)]
pub(crate) fn mma_tf32(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    multiply(Operation::MmaTf32, a, b, c, tf32)
}
