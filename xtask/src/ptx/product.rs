//! The crates to build, the instruction sets to build them for, and the GPUs to check the result for.

/// A crate with entry points, from which one file is made for each target.
pub(super) struct Product {
    pub(super) package: &'static str,
    /// The part of the files' names before the target.
    pub(super) stem: &'static str,
}

/// All crates with entry points.
pub(super) const PRODUCTS: &[Product] =
    &[Product { package: "wtacrs-kernels", stem: "wtacrs" }, Product { package: "wtacrs-simt", stem: "checks" }];

/// The instructions that a file may use: a compute capability and a version of the PTX language. Drivers compile the file
/// for their GPU, so another target is useful only if its additional instructions make kernels faster.
pub(super) struct Target {
    pub(super) capability: u32,
    /// In tenths: 70 is PTX 7.0, which drivers of CUDA 11.0 and later read.
    pub(super) ptx: u32,
}

/// The targets that files are made for.
pub(super) const TARGETS: &[Target] = &[Target { capability: 80, ptx: 70 }];

/// The GPUs that files are assembled for.
pub(super) const ARCHITECTURES: &[u32] = &[80, 86, 89, 90, 100, 120];
