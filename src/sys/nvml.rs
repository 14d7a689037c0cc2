//! What nvml-wrapper does not wrap of NVML (NVIDIA's `nvml.h`, header 13.0). Used by the helper alone.

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::{
    nvmlProcessUtilizationInfo_v1_t, nvmlProcessesUtilizationInfo_t, nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE,
};

/// Room for processes that begin between the two calls.
const HEADROOM: u32 = 32;
/// More records than the driver's ring has samples come from a driver that is broken (nvtop issue 110).
const RECORDS_MAX: u32 = 65_536;

/// `nvmlDeviceGetProcessesUtilizationInfo` (driver 550 and later): process id and percent of streaming multiprocessor time
/// of each process that used the device after `after`.
///
/// # Errors
/// Those of NVML; `NotFound` says that none did.
pub fn processes_utilization(nvml: &Nvml, device: &Device<'_>, after: u64) -> Result<Vec<(u32, u32)>, NvmlError> {
    let call = nvml_sym(nvml.lib().nvmlDeviceGetProcessesUtilizationInfo.as_ref())?;
    let size = u32::try_from(std::mem::size_of::<nvmlProcessesUtilizationInfo_t>()).unwrap_or(0);
    let mut info = nvmlProcessesUtilizationInfo_t {
        // NVML_STRUCT_VERSION(ProcessesUtilizationInfo, 1).
        version: size | (1 << 24),
        processSamplesCount: 0,
        lastSeenTimeStamp: after,
        procUtilArray: std::ptr::null_mut(),
    };
    // SAFETY: the symbol is that of the library that `nvml` keeps loaded, `device` is a handle of it, and a null array
    // with a count of 0 asks for the count (nvml.h).
    let probed = unsafe { call(device.handle(), &raw mut info) };
    if probed != nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE {
        return nvml_try(probed).map(|()| Vec::new());
    }
    let room = info.processSamplesCount.min(RECORDS_MAX).saturating_add(HEADROOM);
    let empty = nvmlProcessUtilizationInfo_v1_t {
        timeStamp: 0,
        pid: 0,
        smUtil: 0,
        memUtil: 0,
        encUtil: 0,
        decUtil: 0,
        jpgUtil: 0,
        ofaUtil: 0,
    };
    let mut records = vec![empty; usize::try_from(room).unwrap_or(0)];
    info.processSamplesCount = room;
    info.procUtilArray = records.as_mut_ptr();
    // SAFETY: as before; the array has room for as many records as the count says, and outlives the call.
    nvml_try(unsafe { call(device.handle(), &raw mut info) })?;
    records.truncate(usize::try_from(info.processSamplesCount).unwrap_or(0));
    Ok(records
        .into_iter()
        .filter(|record| record.timeStamp > after)
        .map(|record| (record.pid, record.smUtil))
        .collect())
}

/// `nvmlDeviceGetGpuInstanceId` and `nvmlDeviceGetComputeInstanceId` of a MIG device.
///
/// # Errors
/// Those of NVML.
pub fn instance_ids(nvml: &Nvml, device: &Device<'_>) -> Result<(u32, u32), NvmlError> {
    let gpu = nvml_sym(nvml.lib().nvmlDeviceGetGpuInstanceId.as_ref())?;
    let compute = nvml_sym(nvml.lib().nvmlDeviceGetComputeInstanceId.as_ref())?;
    let (mut gpu_instance, mut compute_instance) = (0, 0);
    // SAFETY: both symbols are those of the library that `nvml` keeps loaded, and write one number each.
    nvml_try(unsafe { gpu(device.handle(), &raw mut gpu_instance) })?;
    // SAFETY: the same.
    nvml_try(unsafe { compute(device.handle(), &raw mut compute_instance) })?;
    Ok((gpu_instance, compute_instance))
}
