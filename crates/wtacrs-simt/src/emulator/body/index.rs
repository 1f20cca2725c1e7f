//! Who the running thread is.

use crate::emulator::machine::current;

#[inline(always)]
pub(crate) fn thread() -> u32 {
    current().index
}

#[inline(always)]
pub(crate) fn block_threads() -> u32 {
    current().block().threads.len() as u32
}

#[inline(always)]
pub(crate) fn block() -> [u32; 3] {
    current().block().index
}

#[inline(always)]
pub(crate) fn grid() -> [u32; 3] {
    current().block().grid
}

#[inline(always)]
pub(crate) fn at_most<const THREADS: u32>() {}
