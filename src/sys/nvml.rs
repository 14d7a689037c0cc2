//! What nvml-wrapper does not wrap of NVML (NVIDIA's `nvml.h`, header 13.0). Used by the helper alone.

use nvml_wrapper::enum_wrappers::device::SampleValueType;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::struct_wrappers::device::Sample;
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::{
    nvmlProcessUtilizationInfo_v1_t, nvmlProcessesUtilizationInfo_t, nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE,
    nvmlSample_t, nvmlSamplingType_enum_NVML_GPU_UTILIZATION_SAMPLES, nvmlValue_t,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT,
};

/// The driver's ring holds 72 samples, so that one call has room for all; the question for their number is a second
/// call, and each costs a journey to the device (0.7 ms on an H200).
const ROOM: u32 = 128;
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
    let ask = |room: u32| {
        let mut records = vec![empty; usize::try_from(room).unwrap_or(0)];
        let mut info = nvmlProcessesUtilizationInfo_t {
            // NVML_STRUCT_VERSION(ProcessesUtilizationInfo, 1).
            version: size | (1 << 24),
            processSamplesCount: room,
            lastSeenTimeStamp: after,
            procUtilArray: records.as_mut_ptr(),
        };
        // SAFETY: the symbol is that of the library that `nvml` keeps loaded, `device` is a handle of it, and the array has
        // room for as many records as the count says, and outlives the call (nvml.h).
        let code = unsafe { call(device.handle(), &raw mut info) };
        (code, info.processSamplesCount, records)
    };
    let (mut code, mut count, mut records) = ask(ROOM);
    if code == nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE {
        // Some begin between the two calls.
        (code, count, records) = ask(count.min(RECORDS_MAX).saturating_add(ROOM));
    }
    nvml_try(code)?;
    records.truncate(usize::try_from(count).unwrap_or(0));
    Ok(records
        .into_iter()
        .filter(|record| record.timeStamp > after)
        .map(|record| (record.pid, record.smUtil))
        .collect())
}

/// `nvmlDeviceGetSamples` of GPU utilisation by one call: the samples after `after`.
///
/// # Errors
/// Those of NVML; `NotFound` says that there are none, `InsufficientSize` that there are more than 128.
pub fn utilization_samples(nvml: &Nvml, device: &Device<'_>, after: u64) -> Result<Vec<Sample>, NvmlError> {
    let call = nvml_sym(nvml.lib().nvmlDeviceGetSamples.as_ref())?;
    let (mut kind, mut count) = (nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT, ROOM);
    let empty = nvmlSample_t { timeStamp: 0, sampleValue: nvmlValue_t { ullVal: 0 } };
    let mut samples = vec![empty; usize::try_from(ROOM).unwrap_or(0)];
    let which = nvmlSamplingType_enum_NVML_GPU_UTILIZATION_SAMPLES;
    // SAFETY: the symbol is that of the library that `nvml` keeps loaded, `device` is a handle of it, and the array has room
    // for as many samples as the count says, and outlives the call (nvml.h).
    nvml_try(unsafe { call(device.handle(), which, after, &raw mut kind, &raw mut count, samples.as_mut_ptr()) })?;
    samples.truncate(usize::try_from(count).unwrap_or(0));
    samples.retain(|sample| sample.timeStamp > after);
    let kind = SampleValueType::try_from(kind)?;
    Ok(samples.into_iter().map(|sample| Sample::from_tag_and_struct(&kind, sample)).collect())
}

/// `nvmlDeviceGetRemappedRows` (Ampere and newer): how many rows of its memory were ever replaced by spare ones, for errors that
/// were corrected and for those that were not.
///
/// # Errors
/// Those of NVML.
pub fn remapped_rows(nvml: &Nvml, device: &Device<'_>) -> Result<u64, NvmlError> {
    let call = nvml_sym(nvml.lib().nvmlDeviceGetRemappedRows.as_ref())?;
    let (mut corrected, mut uncorrected, mut pending, mut failed) = (0, 0, 0, 0);
    // SAFETY: the symbol is that of the library that `nvml` keeps loaded, `device` is a handle of it, and it writes one number
    // to each of the four (nvml.h).
    nvml_try(unsafe {
        call(device.handle(), &raw mut corrected, &raw mut uncorrected, &raw mut pending, &raw mut failed)
    })?;
    Ok(u64::from(corrected) + u64::from(uncorrected))
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
