//! The sidecar: front and keeper.

pub mod options;
