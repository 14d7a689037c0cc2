//! What is asked of the kernel. The only `unsafe` of the crate is here.

pub mod cgroup;
pub mod clock;
