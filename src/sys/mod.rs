//! What is asked of the kernel. The only `unsafe` of the crate is here.

pub mod cgroup;
pub mod clock;
pub mod process;
pub mod shared;
pub mod signals;
pub mod spawn;
pub mod terminal;
