//! What a plan needs to know of a GPU, and what a user wants to.

/// A GPU, or the emulator in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// As the vendor calls it.
    pub name: String,
    /// Major and minor: 8.0 is sm_80.
    pub compute_capability: (u32, u32),
    /// How many blocks can run side by side, at one block each.
    pub multiprocessors: u32,
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// Bytes of the cache that all multiprocessors share.
    pub l2_bytes: u64,
    /// The most shared memory, in bytes, that a block can be given.
    pub shared_bytes: u32,
}

impl Device {
    /// What plans for the emulator are made with: a small GPU with the least shared memory of those that are supported
    /// (sm_86).
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
