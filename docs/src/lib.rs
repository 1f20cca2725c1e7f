//! The documents whose code is tested. They lie outside of any package, so their tests cannot be a published crate's.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../designs.md")]
struct Designs;

#[cfg(doctest)]
#[doc = include_str!("../operators.md")]
struct Operators;

#[cfg(doctest)]
#[doc = include_str!("../packing.md")]
struct PackingPage;

#[cfg(doctest)]
#[doc = include_str!("../../crates/wtacrs-core/README.md")]
struct CoreReadme;

#[cfg(doctest)]
#[doc = include_str!("../../crates/wtacrs-exact/README.md")]
struct ExactReadme;
