//! What follows from an error of NVML.

use jobmeter::meter::gpu::wire::{Fault, FaultKind};
use nvml_wrapper::error::NvmlError;

/// What a meter does about it follows from its kind.
pub(super) fn of(error: &NvmlError) -> Fault {
    let kind = match error {
        NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound => {
            FaultKind::Unsupported
        }
        NvmlError::NoPermission => FaultKind::Denied,
        NvmlError::GpuLost | NvmlError::ResetRequired => FaultKind::Lost,
        _ => FaultKind::Failed,
    };
    Fault { kind, why: error.to_string() }
}
