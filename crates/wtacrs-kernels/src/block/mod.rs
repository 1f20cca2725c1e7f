//! What kernels are built from. Every piece is called by all threads of a block (or warp) together, states what it
//! costs and which shared memory it uses, and has tests of its own.

pub mod exponential;
pub mod logarithm;
pub mod output;
pub mod reduce;
pub mod repeat;
pub mod row_team;
pub mod scan;
pub mod spacing;
pub mod tile;
pub mod vector;
pub mod words;
