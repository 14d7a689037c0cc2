//! What is asked of the kernel. The only `unsafe` of the crate is here.

#![expect(unsafe_code, reason = "this is the one room where the kernel is asked directly")]

pub mod bell;
pub mod cgroup;
pub mod cgroup1;
pub mod clock;
pub mod containment;
pub mod credentials;
pub mod device_filter;
pub mod environment;
pub mod family;
mod group_kill;
pub mod handshake;
pub mod identity;
pub mod inherited;
pub mod limits;
mod mount;
pub mod nvml;
pub mod outside;
pub mod perf;
pub mod poll;
pub mod population;
pub mod proc;
pub mod process;
pub mod shared;
pub mod signals;
pub mod sockets;
pub mod spawn;
pub mod terminal;
pub mod tree;
pub mod trust;
pub mod user_scope;
pub mod witness;
