//! What operators between the products compute and save: activation functions and their slopes, values in few bits, dropout's
//! masks, and sums in an order that every device can keep.
//!
//! All of it is a fixed sequence of single f32 operations, none fused, and of counter-based random bits. So what an
//! operator saves has the same bits on every device. `wtacrs_core::operators` says what each operator does with it.
//!
//! | module | settles |
//! |---|---|
//! | [`functions`] | GELU, SiLU and ReLU with their slopes, exp, sums of rows |
//! | [`values`] | values in few bits whose errors are uncorrelated |
//! | [`dropout`] | which elements are kept, and what they count |

pub mod dropout;
pub mod functions;
pub mod values;
