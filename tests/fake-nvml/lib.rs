//! An NVML without a GPU: the symbols that nvml-wrapper resolves, as a driver would answer for the devices of a script
//! (`FAKE_NVML`, else /run/fake-nvml.json). What the script says is the truth that metering is compared with.

#![allow(
    unsafe_code,
    non_snake_case,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::pedantic,
    clippy::missing_safety_doc,
    clippy::undocumented_unsafe_blocks,
    reason = "a test double with the C interface of NVML"
)]

mod condition;
mod script;

use std::ffi::{CStr, c_char, c_uint, c_ulonglong, c_void};
use std::time::Duration;

use nvml_wrapper_sys::bindings::{
    nvmlDeviceAttributes_t, nvmlGpmMetricsGet_t, nvmlGpmSupport_t, nvmlMemory_v2_t, nvmlProcessInfo_t,
    nvmlProcessUtilizationSample_t, nvmlProcessesUtilizationInfo_t, nvmlSample_t,
};

use script::{Device, Part, Script, Stretch, now_us, script};

type Code = u32;
type Handle = *mut c_void;

const SUCCESS: Code = 0;
const INVALID_ARGUMENT: Code = 2;
const NOT_SUPPORTED: Code = 3;
const NO_PERMISSION: Code = 4;
const NOT_FOUND: Code = 6;
const INSUFFICIENT_SIZE: Code = 7;
const GPU_IS_LOST: Code = 15;
const MEMORY_BYTES: u64 = 141 << 30;
const PROCESS_BYTES: u64 = 3 << 30;
/// More than there are: a capacity, not a count (go-nvml issue 11).
const CAPACITY: c_uint = 100;

/// What every call does first: hangs, dies, or fails where the script says so.
fn enter(name: &str) -> Result<&'static Script, Code> {
    let script = script().ok_or(9_u32)?;
    let now_ms = now_us() / 1_000;
    let within = |stretch: &Option<(u64, u64)>| stretch.is_some_and(|(from, until)| (from..until).contains(&now_ms));
    if within(&script.crashes_ms) {
        std::process::abort();
    }
    if script.prints {
        let text = b"{\"polled\": \"nothing\"}\n";
        std::io::Write::write_all(&mut std::io::stdout(), text).unwrap_or_default();
    }
    while within_now(&script.hangs_ms) {
        std::thread::sleep(Duration::from_millis(20));
    }
    match script.faults.get(name) {
        Some(code) => Err(*code),
        None => Ok(script),
    }
}

fn within_now(stretch: &Option<(u64, u64)>) -> bool {
    let now_ms = now_us() / 1_000;
    stretch.is_some_and(|(from, until)| (from..until).contains(&now_ms))
}

fn handle(device: usize, part: Option<usize>) -> Handle {
    std::ptr::without_provenance_mut(((device + 1) << 8) | part.map_or(0, |part| part + 1))
}

struct Found {
    device: &'static Device,
    at: usize,
    part: Option<(usize, &'static Part)>,
}

impl Found {
    fn busy(&self) -> &'static [Stretch] {
        self.part.map_or(&self.device.busy, |(_, part)| &part.busy)
    }
}

fn find(name: &str, handle: Handle) -> Result<(&'static Script, Found), Code> {
    let script = enter(name)?;
    let number = handle.addr();
    let at = (number >> 8).checked_sub(1).ok_or(INVALID_ARGUMENT)?;
    let device = script.devices.get(at).ok_or(INVALID_ARGUMENT)?;
    if within_now(&device.lost_ms) {
        return Err(GPU_IS_LOST);
    }
    let part = (number & 0xff).checked_sub(1).and_then(|at| device.parts.get(at).map(|part| (at, part)));
    Ok((script, Found { device, at, part }))
}

fn code(result: Result<(), Code>) -> Code {
    result.err().unwrap_or(SUCCESS)
}

unsafe fn text(value: &str, into: *mut c_char, length: c_uint) -> Result<(), Code> {
    if value.len() + 1 > length as usize {
        return Err(INSUFFICIENT_SIZE);
    }
    unsafe {
        std::ptr::copy_nonoverlapping(value.as_ptr().cast(), into, value.len());
        *into.add(value.len()) = 0;
    }
    Ok(())
}

/// The way of most lists: without room it says how much is needed.
unsafe fn list<T>(values: Vec<T>, count: *mut c_uint, into: *mut T) -> Result<(), Code> {
    let room = unsafe { *count } as usize;
    unsafe { *count = values.len() as c_uint };
    if values.is_empty() {
        return Ok(());
    }
    if into.is_null() || room < values.len() {
        return Err(INSUFFICIENT_SIZE);
    }
    for (at, value) in values.into_iter().enumerate() {
        unsafe { into.add(at).write(value) };
    }
    Ok(())
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> Code {
    match enter("nvmlInit_v2") {
        Ok(script) => script.init,
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> Code {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(into: *mut c_char, length: c_uint) -> Code {
    code(enter("nvmlSystemGetDriverVersion").and_then(|script| unsafe { text(&script.driver, into, length) }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> Code {
    code(enter("nvmlDeviceGetCount_v2").map(|script| unsafe { *count = script.devices.len() as c_uint }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, into: *mut Handle) -> Code {
    code(enter("nvmlDeviceGetHandleByIndex_v2").and_then(|script| {
        let device = script.devices.get(index as usize).ok_or(INVALID_ARGUMENT)?;
        if device.denied {
            return Err(NO_PERMISSION);
        }
        unsafe { *into = handle(index as usize, None) };
        Ok(())
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, into: *mut Handle) -> Code {
    code(enter("nvmlDeviceGetHandleByUUID").and_then(|script| {
        let uuid = unsafe { CStr::from_ptr(uuid) }.to_str().map_err(|_| INVALID_ARGUMENT)?;
        for (at, device) in script.devices.iter().enumerate() {
            let part = device.parts.iter().position(|part| part.uuid == uuid);
            if device.uuid == uuid || part.is_some() {
                if within_now(&device.lost_ms) {
                    return Err(GPU_IS_LOST);
                }
                unsafe { *into = handle(at, part) };
                return Ok(());
            }
        }
        Err(NOT_FOUND)
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(device: Handle, into: *mut c_char, length: c_uint) -> Code {
    code(find("nvmlDeviceGetUUID", device).and_then(|(_, found)| {
        let uuid = found.part.map_or(&found.device.uuid, |(_, part)| &part.uuid);
        unsafe { text(uuid, into, length) }
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(device: Handle, into: *mut c_char, length: c_uint) -> Code {
    code(find("nvmlDeviceGetName", device).and_then(|(_, found)| {
        let profile = found.part.map(|(_, part)| format!(" MIG {}", part.profile)).unwrap_or_default();
        unsafe { text(&format!("{}{profile}", found.device.name), into, length) }
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMinorNumber(device: Handle, into: *mut c_uint) -> Code {
    code(find("nvmlDeviceGetMinorNumber", device).map(|(_, found)| unsafe { *into = found.at as c_uint }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: Handle, into: *mut nvmlMemory_v2_t) -> Code {
    code(find("nvmlDeviceGetMemoryInfo_v2", device).map(|(_, found)| unsafe {
        let used = script::open(found.busy(), now_us()).len() as u64 * PROCESS_BYTES;
        (*into).total = MEMORY_BYTES;
        (*into).used = used;
        (*into).free = MEMORY_BYTES - used;
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSamples(
    device: Handle,
    _kind: c_uint,
    after: c_ulonglong,
    value_type: *mut c_uint,
    count: *mut c_uint,
    into: *mut nvmlSample_t,
) -> Code {
    code(find("nvmlDeviceGetSamples", device).and_then(|(script, found)| {
        if !found.device.parts.is_empty() {
            return Err(NOT_SUPPORTED);
        }
        let ring = found.device.ring(now_us(), script.clock_us).into_iter().filter(|sample| sample.at > after);
        let samples: Vec<nvmlSample_t> = ring
            .map(|sample| nvmlSample_t {
                timeStamp: sample.at,
                sampleValue: nvml_wrapper_sys::bindings::nvmlValue_t { uiVal: sample.value },
            })
            .collect();
        unsafe { *value_type = 1 };
        if samples.is_empty() {
            return Err(NOT_FOUND);
        }
        if into.is_null() {
            // The capacity is asked for, and more may come before the next call.
            unsafe { *count = samples.len() as c_uint + 8 };
            return Ok(());
        }
        if found.device.counts_first && unsafe { *count } as usize > samples.len() + 8 {
            return Err(INVALID_ARGUMENT);
        }
        unsafe { list(samples, count, into) }
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetProcessUtilization(
    device: Handle,
    into: *mut nvmlProcessUtilizationSample_t,
    count: *mut c_uint,
    after: c_ulonglong,
) -> Code {
    code(find("nvmlDeviceGetProcessUtilization", device).and_then(|(script, found)| {
        if !found.device.parts.is_empty() {
            return Err(NOT_SUPPORTED);
        }
        if into.is_null() {
            unsafe { *count = CAPACITY };
            return Err(INSUFFICIENT_SIZE);
        }
        let used = found.device.used(now_us(), script.clock_us, after);
        let records: Vec<_> = used
            .into_iter()
            .map(|(pid, smUtil, timeStamp)| nvmlProcessUtilizationSample_t {
                pid,
                timeStamp,
                smUtil,
                memUtil: 0,
                encUtil: 0,
                decUtil: 0,
            })
            .collect();
        if records.is_empty() {
            return Err(NOT_FOUND);
        }
        unsafe { list(records, count, into) }
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetProcessesUtilizationInfo(
    device: Handle,
    info: *mut nvmlProcessesUtilizationInfo_t,
) -> Code {
    code(find("nvmlDeviceGetProcessesUtilizationInfo", device).and_then(|(script, found)| {
        let info = unsafe { &mut *info };
        if info.version != (std::mem::size_of::<nvmlProcessesUtilizationInfo_t>() as u32 | 1 << 24) {
            return Err(25);
        }
        let used = found.device.used(now_us(), script.clock_us, info.lastSeenTimeStamp);
        let room = info.processSamplesCount as usize;
        if info.procUtilArray.is_null() || room < used.len() {
            info.processSamplesCount = CAPACITY;
            return Err(INSUFFICIENT_SIZE);
        }
        info.processSamplesCount = used.len() as c_uint;
        for (at, (pid, percent, time)) in used.into_iter().enumerate() {
            let record = unsafe { &mut *info.procUtilArray.add(at) };
            (record.pid, record.smUtil, record.timeStamp) = (pid, percent, time);
        }
        Ok(())
    }))
}

unsafe fn running(name: &str, device: Handle, count: *mut c_uint, into: *mut nvmlProcessInfo_t) -> Code {
    code(find(name, device).and_then(|(_, found)| {
        let mut pids = script::open(found.busy(), now_us());
        // A driver may name one twice.
        pids.extend(pids.first().copied());
        let none = u32::MAX;
        let process =
            |pid| nvmlProcessInfo_t { pid, usedGpuMemory: PROCESS_BYTES, gpuInstanceId: none, computeInstanceId: none };
        unsafe { list(pids.into_iter().map(process).collect(), count, into) }
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: Handle,
    count: *mut c_uint,
    into: *mut nvmlProcessInfo_t,
) -> Code {
    unsafe { running("nvmlDeviceGetComputeRunningProcesses_v3", device, count, into) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    _device: Handle,
    count: *mut c_uint,
    _into: *mut nvmlProcessInfo_t,
) -> Code {
    unsafe { *count = 0 };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMPSComputeRunningProcesses_v3(
    device: Handle,
    count: *mut c_uint,
    into: *mut nvmlProcessInfo_t,
) -> Code {
    let name = "nvmlDeviceGetMPSComputeRunningProcesses_v3";
    match find(name, device) {
        Ok((_, found)) if found.device.mps => unsafe { running(name, device, count, into) },
        Ok(_) => {
            unsafe { *count = 0 };
            SUCCESS
        }
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(device: Handle, now: *mut c_uint, next: *mut c_uint) -> Code {
    code(find("nvmlDeviceGetMigMode", device).map(|(_, found)| unsafe {
        *now = c_uint::from(!found.device.parts.is_empty());
        *next = *now;
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(device: Handle, count: *mut c_uint) -> Code {
    code(find("nvmlDeviceGetMaxMigDeviceCount", device).map(|_| unsafe { *count = 7 }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(device: Handle, index: c_uint, into: *mut Handle) -> Code {
    code(find("nvmlDeviceGetMigDeviceHandleByIndex", device).and_then(|(_, found)| {
        found.device.parts.get(index as usize).ok_or(NOT_FOUND)?;
        unsafe { *into = handle(found.at, Some(index as usize)) };
        Ok(())
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device: Handle, into: *mut Handle) -> Code {
    code(find("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", device).map(|(_, found)| unsafe {
        *into = handle(found.at, None);
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceIsMigDeviceHandle(device: Handle, into: *mut c_uint) -> Code {
    code(find("nvmlDeviceIsMigDeviceHandle", device).map(|(_, found)| unsafe {
        *into = c_uint::from(found.part.is_some());
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceId(device: Handle, into: *mut c_uint) -> Code {
    code(find("nvmlDeviceGetGpuInstanceId", device).and_then(|(_, found)| {
        unsafe { *into = found.part.ok_or(NOT_SUPPORTED)?.0 as c_uint };
        Ok(())
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeInstanceId(device: Handle, into: *mut c_uint) -> Code {
    code(find("nvmlDeviceGetComputeInstanceId", device).map(|_| unsafe { *into = 0 }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetAttributes_v2(device: Handle, into: *mut nvmlDeviceAttributes_t) -> Code {
    code(find("nvmlDeviceGetAttributes_v2", device).and_then(|(_, found)| {
        let (_, part) = found.part.ok_or(NOT_SUPPORTED)?;
        unsafe {
            (*into).gpuInstanceSliceCount = 2;
            (*into).computeInstanceSliceCount = if part.shares_instance { 1 } else { 2 };
        }
        Ok(())
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmQueryDeviceSupport(device: Handle, into: *mut nvmlGpmSupport_t) -> Code {
    let has = |device: &Device| c_uint::from(device.counters || !device.parts.is_empty());
    let found = find("nvmlGpmQueryDeviceSupport", device);
    code(found.map(|(_, found)| unsafe { (*into).isSupportedDevice = has(found.device) }))
}

/// Of the whole device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleGet(device: Handle, sample: *mut GpmSample) -> Code {
    code(find("nvmlGpmSampleGet", device).map(|(_, found)| unsafe { *sample = (now_us(), found.at, u32::MAX) }))
}

/// A sample is the time at which it was taken, and of which GPU instance.
type GpmSample = (u64, usize, u32);

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleAlloc(into: *mut *mut GpmSample) -> Code {
    unsafe { *into = Box::into_raw(Box::new((0, 0, 0))) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleFree(sample: *mut GpmSample) -> Code {
    drop(unsafe { Box::from_raw(sample) });
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmMigSampleGet(device: Handle, instance: c_uint, sample: *mut GpmSample) -> Code {
    code(find("nvmlGpmMigSampleGet", device).map(|(_, found)| unsafe { *sample = (now_us(), found.at, instance) }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmMetricsGet(request: *mut nvmlGpmMetricsGet_t) -> Code {
    code(enter("nvmlGpmMetricsGet").and_then(|script| {
        let request = unsafe { &mut *request };
        let (from_us, at, instance) = unsafe { *request.sample1.cast::<GpmSample>() };
        let (until_us, ..) = unsafe { *request.sample2.cast::<GpmSample>() };
        let device = script.devices.get(at).ok_or(NOT_FOUND)?;
        let part = device.parts.get(instance as usize).map(|part| &part.busy);
        let busy = part.or((instance == u32::MAX).then_some(&device.busy)).ok_or(NOT_FOUND)?;
        let ppm = script::busy_ppm(busy, from_us, until_us) * device.counters_percent.unwrap_or(100) / 100;
        for metric in request.metrics.iter_mut().take(request.numMetrics as usize) {
            metric.nvmlReturn = SUCCESS;
            metric.value = (ppm * script::part_percent(metric.metricId) / 100) as f64 / 10_000.0;
            let empty = c"".as_ptr().cast_mut();
            (metric.metricInfo.shortName, metric.metricInfo.longName, metric.metricInfo.unit) = (empty, empty, empty);
        }
        Ok(())
    }))
}
