//! Where the books are kept.

pub mod sqlite;
