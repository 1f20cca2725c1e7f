//! The plain types and numbers that the interface shares with both of its bodies.

/// All 32 lanes, as a mask.
pub const FULL: u32 = u32::MAX;

/// Two words of 8 bytes together.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct U32x2(pub [u32; 2]);

/// Four words, 16 bytes together: the widest access there is.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct U32x4(pub [u32; 4]);

/// A place in shared memory, for instructions that take addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub(crate) u32);

impl Address {
    /// The place so many bytes further.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    #[inline(always)]
    #[must_use]
    pub const fn bytes(self, further: u32) -> Self {
        Self(self.0 + further)
    }

    /// The place so many bytes further, or back. To walk around a ring, move one place: the constant offsets of what is
    /// accessed around it then stay in the instructions.
    #[inline(always)]
    #[must_use]
    pub const fn moved(self, bytes: i32) -> Self {
        Self(self.0.wrapping_add_signed(bytes))
    }
}
