//! How property tests run.

use proptest::test_runner::{Config, FileFailurePersistence};

/// A case that once failed is kept in `tests/regressions`, a file for each file of `src`, and is tried first ever after: commit it.
pub(crate) fn config() -> Config {
    let regressions = FileFailurePersistence::SourceParallel("tests/regressions");
    Config { failure_persistence: Some(Box::new(regressions)), ..Config::default() }
}
