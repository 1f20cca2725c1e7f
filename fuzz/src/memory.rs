//! Memory for calls of the C interface, and the promises that hold for every call whatever its arguments.
//!
//! A caller's part is that a pointer leads to the memory it says; everything else is the library's to check. So each
//! argument gets exactly the bytes that a valid call may use, in an allocation of its own (then AddressSanitizer sees a
//! stray access) or anywhere in an arena that all arguments share (then they overlap and are misaligned).

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use wtacrs::{WTACRS_STATUS_OK, WTACRS_STATUS_PANIC, wtacrs_error_info, wtacrs_last_error, wtacrs_status};

/// The most bytes that one argument may need.
pub const MOST: usize = 1 << 13;
const ARENA: usize = 2 * MOST;

/// Where an argument lies.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Place {
    /// In an allocation of its own, aligned to 64, with a seed of what is in it.
    Own(u8),
    /// The same, so many bytes off the alignment.
    Shifted(u8, u8),
    /// At this offset of the arena, as it is.
    Shared(u16),
    Null,
}

impl Place {
    /// An allocation of its own, so many bytes off the alignment.
    pub fn shifted(bytes: u8) -> Self {
        Self::Shifted(bytes, 0)
    }
}

/// Bytes that a call may write: where they begin and how many.
pub type Span = (*mut u8, usize);

struct Block {
    start: *mut u8,
    layout: Layout,
}

impl Block {
    fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes.max(1), 64).expect("a small block");
        // SAFETY: the layout has a size.
        let start = unsafe { alloc_zeroed(layout) };
        assert!(!start.is_null(), "no memory");
        Self { start, layout }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: an allocation of that size, zeroed when it was made.
        unsafe { std::slice::from_raw_parts(self.start, self.layout.size()) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start, self.layout) }
    }
}

/// The arena, blocks kept from call to call (saved memory), and those placed since the last [`Memory::release`].
pub struct Memory {
    arena: Block,
    kept: Vec<Block>,
    of_call: Vec<Block>,
}

impl Default for Memory {
    fn default() -> Self {
        let arena = Block::new(ARENA);
        fill(arena.start, ARENA, 4, 3);
        Self { arena, kept: vec![], of_call: vec![] }
    }
}

impl Memory {
    /// `bytes` bytes at a place, filled with elements of `element` bytes; NULL if they are more than [`MOST`].
    pub fn place(&mut self, place: Place, bytes: usize, element: usize) -> *mut u8 {
        if bytes > MOST {
            return std::ptr::null_mut();
        }
        let (shift, seed) = match place {
            Place::Null => return std::ptr::null_mut(),
            Place::Shared(offset) => return self.arena.start.wrapping_add(usize::from(offset) % (ARENA - MOST)),
            Place::Own(seed) => (0, seed),
            Place::Shifted(shift, seed) => (usize::from(shift) % 64, seed),
        };
        let block = Block::new(bytes + shift);
        let start = block.start.wrapping_add(shift);
        fill(start, bytes, element, seed);
        self.of_call.push(block);
        start
    }

    /// A block that stays, for what lives from a forward to a backward pass.
    pub fn keep(&mut self, bytes: usize) -> Span {
        let block = Block::new(bytes.min(MOST));
        let span = (block.start, bytes.min(MOST));
        self.kept.push(block);
        span
    }

    /// One of the blocks that stayed.
    pub fn kept(&self, pick: u8) -> Option<Span> {
        let block = self.kept.get(usize::from(pick) % self.kept.len().max(1))?;
        Some((block.start, block.layout.size()))
    }

    /// Makes a call and checks what always holds: no panic; with WTACRS_STATUS_OK only `outputs` changed, and the last error did
    /// not; without, nothing changed but `scratch`, and the last error names the function.
    pub fn call(
        &mut self,
        function: &str,
        outputs: &[Span],
        scratch: &[Span],
        call: impl FnOnce() -> wtacrs_status,
    ) -> wtacrs_status {
        let blocks = || [&self.arena].into_iter().chain(&self.kept).chain(&self.of_call);
        let before: Vec<Vec<u8>> = blocks().map(|block| block.bytes().to_vec()).collect();
        let words_before = last_error();
        let status = call();
        let words = last_error();
        assert_ne!(status, WTACRS_STATUS_PANIC, "{words}");
        if status == WTACRS_STATUS_OK {
            assert_eq!(words, words_before, "a success leaves the last error");
        } else {
            assert!(words.strip_prefix(function).is_some_and(|rest| rest.starts_with(": ")), "{function}: {words:?}");
        }
        let within = |spans: &[Span], at: usize| spans.iter().any(|&(start, len)| at.wrapping_sub(start.addr()) < len);
        for (block, before) in blocks().zip(&before) {
            if block.bytes() == before {
                continue;
            }
            for (at, (now, before)) in block.bytes().iter().zip(before).enumerate() {
                let at = block.start.addr() + at;
                let allowed = within(scratch, at) || (status == WTACRS_STATUS_OK && within(outputs, at));
                assert!(now == before || allowed, "{function} ({status}) wrote at {at:#x}: {words}");
            }
        }
        status
    }

    /// Ends the life of what was placed.
    pub fn release(&mut self) {
        self.of_call.clear();
    }
}

/// The calling thread's last error.
pub fn last_error() -> String {
    let mut buffer = [0_u8; 1024];
    let mut info = wtacrs_error_info { size: size_of::<wtacrs_error_info>(), ..Default::default() };
    // SAFETY: a buffer of that size, and an output of one struct.
    let status = unsafe { wtacrs_last_error(buffer.as_mut_ptr().cast(), buffer.len(), &raw mut info) };
    let needed = info.text_bytes;
    assert_eq!(status, WTACRS_STATUS_OK);
    assert!(needed >= 1 && needed <= buffer.len(), "an error in {needed} bytes");
    String::from_utf8(buffer[..needed - 1].to_vec()).expect("UTF-8")
}

/// Elements of 2, 4 or 8 bytes: mostly small numbers; by the seed also zeros, any bits, or one that is not finite.
fn fill(start: *mut u8, bytes: usize, element: usize, seed: u8) {
    let count = bytes / element.max(1);
    let mut state = u64::from(seed) + 1;
    for at in 0..count {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let chance = state >> 33;
        let odd_one = at == usize::from(seed) % count;
        let bits = match (seed >> 4, element) {
            (14, _) => 0,
            (15, _) => state ^ (state >> 32),
            (13, 2) if odd_one => 0x7fff,
            (13, 4) if odd_one => u64::from(f32::NAN.to_bits()),
            (13, _) if odd_one => f64::INFINITY.to_bits(),
            (12, 4) if odd_one => u64::from((-1_f32).to_bits()),
            // As f16 0, 0.5, 1, 1.5, 2, 3; as bf16 small numbers too.
            (_, 2) => [0, 0x3800, 0x3c00, 0x3e00, 0x4000, 0x4200][chance as usize % 6],
            (_, 4) => u64::from(((chance % 17) as f32 / 8.0).to_bits()),
            _ => ((chance % 17) as f64 / 8.0).to_bits(),
        };
        let bits = bits.to_le_bytes();
        // SAFETY: the caller's block has `bytes` bytes, and `at` counts whole elements in it.
        unsafe { std::ptr::copy_nonoverlapping(bits.as_ptr(), start.add(at * element), element.min(8)) };
    }
}
