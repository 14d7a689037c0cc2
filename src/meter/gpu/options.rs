//! What a run says about GPUs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::claims::Claims;
use super::declared::Selection;
use super::identity::DriverFiles;
use super::{pbs, place};

/// What a run says about GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuOptions {
    /// `--gpus`.
    pub selection: Option<Selection>,
    /// `--gpu-exclusive`.
    pub exclusive: bool,
    /// `--nvml-library`.
    pub library: Option<PathBuf>,
    /// A job with a device that is neither metered nor charged does not start.
    pub refuses_uncharged: bool,
    /// NVML is not asked: the job runs already, and could take the helper over.
    pub no_helper: bool,
    /// Who says which devices are the job's, where `--gpus` does not.
    pub giver: Giver,
    /// Shared with the other tasks of the job.
    pub claims: Option<Claims>,
}

/// Who says which devices are the job's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Giver {
    /// This process's environment, or what its container can see.
    #[default]
    Environment,
    /// A scheduler, by these variables of the job's.
    Scheduler(BTreeMap<String, String>),
    /// What the container can see, and nothing else: environment, loader and libraries are its image's, and so the job's user's.
    Container,
}

impl Giver {
    /// What it has set.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<String> {
        match self {
            Self::Environment if name == pbs::VARIABLE => Some(pbs::numbers(&std::env::var(name).ok()?)),
            Self::Environment => std::env::var(name).ok(),
            Self::Scheduler(set) => set.get(name).cloned(),
            Self::Container => None,
        }
    }

    /// Whether all that can be seen is the job's, unless it says otherwise.
    #[must_use]
    pub fn gives_all(&self) -> bool {
        match self {
            Self::Environment => place::in_container(),
            Self::Scheduler(_) => false,
            Self::Container => true,
        }
    }
}

impl GpuOptions {
    /// Whether there could be anything to meter: without a sign of a device nothing is started.
    #[must_use]
    pub fn concern_a_gpu(&self) -> bool {
        self.library.is_some()
            || DriverFiles::default().show_a_gpu()
            || matches!(self.selection, Some(Selection::These(_)))
    }
}
