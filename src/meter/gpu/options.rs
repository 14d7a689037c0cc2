//! What a run says about GPUs.

use std::path::PathBuf;

use super::claims::Claims;
use super::declared::Selection;
use super::identity::DriverFiles;

/// What a run says about GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuOptions {
    /// `--gpus`.
    pub selection: Option<Selection>,
    /// `--gpu-exclusive`.
    pub exclusive: bool,
    /// `--nvml-library`.
    pub library: Option<PathBuf>,
    /// Shared with the other tasks of the job.
    pub claims: Option<Claims>,
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
