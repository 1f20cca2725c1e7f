//! The properties of a GPU that plans depend on, and a few for users.

use crate::launch::dense::Dense;

/// A GPU, or the emulator in place of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The vendor's name.
    pub name: String,
    /// Major and minor: 8.0 is sm_80.
    pub compute_capability: (u32, u32),
    /// Multiprocessors, which run one block each at the same time, or several.
    pub multiprocessors: u32,
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// Bytes of the cache that all multiprocessors share.
    pub l2_bytes: u64,
    /// The most shared memory of a block, in bytes.
    pub shared_bytes: u32,
    /// The vendor's library of dense products, which is loaded when a plan first wants it; none: plans do not look for it.
    pub dense: Option<Dense>,
}

impl Device {
    /// The device of plans for the emulator: a small GPU with the least shared memory of all supported ones (sm_86).
    pub fn emulated() -> Self {
        Self {
            name: "emulator".to_owned(),
            compute_capability: (8, 0),
            multiprocessors: 4,
            memory_bytes: 0,
            l2_bytes: 0,
            shared_bytes: 99 << 10,
            #[cfg(feature = "emulator")]
            dense: Some(Dense::emulated()),
            #[cfg(not(feature = "emulator"))]
            dense: None,
        }
    }
}
