//! The properties of a GPU that plans depend on, and a few for users.

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
        }
    }
}
