//! A ledger file that is moved away or replaced under a running service: SQLite would go on in the old one, of which nobody
//! knows any more, so that the service ends, and says why.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::ledger::store::sqlite::identity;

/// How often the path is looked at. Each transaction looks as well.
const LOOK: Duration = Duration::from_secs(1);

/// The path of a ledger file, and which file it was; `None` of what is no file.
pub(super) struct FileWatch(Option<(PathBuf, Option<(u64, u64)>)>);

impl FileWatch {
    /// Of the file as it is now.
    pub(super) fn new(file: Option<&Path>) -> Self {
        Self(file.map(|path| (path.to_owned(), identity(path))))
    }

    /// Comes, with the reason, once the file is another; never for what is no file.
    pub(super) async fn ended(self) -> String {
        let Some((path, before)) = self.0 else { return std::future::pending().await };
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let path = path.clone();
            match tokio::task::spawn_blocking(move || identity(&path)).await {
                Ok(None) => return "the file was removed or moved away while it was in use".to_owned(),
                Ok(now) if now == before => {}
                Ok(Some(_)) => return "another file has taken its place while it was in use".to_owned(),
                Err(error) => return format!("the file cannot be looked at: {error}"),
            }
        }
    }
}
