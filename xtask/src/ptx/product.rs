//! What is built: which crates, for which instruction sets, and for which GPUs the result is checked.

/// A crate whose entry points make one file for each target.
pub(super) struct Product {
    pub(super) package: &'static str,
    /// The files' name before the target's.
    pub(super) stem: &'static str,
}

/// Every crate that has entry points.
pub(super) const PRODUCTS: &[Product] =
    &[Product { package: "wtacrs-kernels", stem: "wtacrs" }, Product { package: "wtacrs-simt", stem: "checks" }];

/// What instructions a file may use: a compute capability and a version of the PTX language. Drivers compile it for their
/// GPU, so a further target is worth its room only where kernels gain from instructions that it adds.
pub(super) struct Target {
    pub(super) capability: u32,
    /// Tenths: 70 is PTX 7.0, which drivers of CUDA 11.0 and later read.
    pub(super) ptx: u32,
}

/// Every target that a file is made for.
pub(super) const TARGETS: &[Target] = &[Target { capability: 80, ptx: 70 }];

/// The GPUs that files are assembled for.
pub(super) const ARCHITECTURES: &[u32] = &[80, 86, 89, 90, 100, 120];
