//! What a device draws, why it is slow, and what goes wrong on it.

use std::ffi::{c_uint, c_ulonglong};
use std::sync::Mutex;

use nvml_wrapper_sys::bindings::nvmlEventData_t;

use crate::script::{PERIOD_US, busy_ppm};
use crate::{Code, Handle, NOT_SUPPORTED, SUCCESS, code, enter, find, handle, now_us};

const TIMEOUT: Code = 10;
/// `nvmlEventTypeXidCriticalError`.
const XID: c_ulonglong = 0x8;

/// A device, and how many of its errors were told.
type Set = Mutex<Option<(usize, usize)>>;

/// How many of these times have passed.
fn passed<T>(times: &[T], at_ms: impl Fn(&T) -> u64) -> usize {
    times.iter().filter(|time| at_ms(time) * 1_000 <= now_us()).count()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEnergyConsumption(device: Handle, into: *mut c_ulonglong) -> Code {
    code(find("nvmlDeviceGetTotalEnergyConsumption", device).map(|(_, found)| unsafe {
        *into = found.device.energy_mj(now_us());
    }))
}

/// Over the last sixth of a second.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(device: Handle, into: *mut [c_uint; 2]) -> Code {
    code(find("nvmlDeviceGetUtilizationRates", device).and_then(|(_, found)| {
        if !found.device.tells_rates {
            return Err(NOT_SUPPORTED);
        }
        let now_us = now_us();
        let ppm = busy_ppm(&found.device.busy, now_us.saturating_sub(PERIOD_US), now_us);
        unsafe { *into = [c_uint::try_from(ppm / 10_000).unwrap_or(100), 0] };
        Ok(())
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(device: Handle, into: *mut c_ulonglong) -> Code {
    code(find("nvmlDeviceGetCurrentClocksThrottleReasons", device).map(|(_, found)| unsafe {
        *into = found.device.slowdown;
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: Handle,
    _kind: c_uint,
    _counter: c_uint,
    into: *mut c_ulonglong,
) -> Code {
    code(find("nvmlDeviceGetTotalEccErrors", device).map(|(_, found)| unsafe {
        *into = passed(&found.device.ecc_ms, |at_ms| *at_ms) as c_ulonglong;
    }))
}

/// Each was for an error that could not be corrected.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRemappedRows(
    device: Handle,
    corrected: *mut c_uint,
    uncorrected: *mut c_uint,
    pending: *mut c_uint,
    failed: *mut c_uint,
) -> Code {
    code(find("nvmlDeviceGetRemappedRows", device).map(|(_, found)| unsafe {
        (*corrected, *pending, *failed) = (0, 0, 0);
        *uncorrected = passed(&found.device.remapped_ms, |at_ms| *at_ms) as c_uint;
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(into: *mut *mut Set) -> Code {
    code(enter("nvmlEventSetCreate").map(|_| unsafe { *into = Box::into_raw(Box::new(Mutex::new(None))) }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetFree(set: *mut Set) -> Code {
    drop(unsafe { Box::from_raw(set) });
    SUCCESS
}

/// What was before is not told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceRegisterEvents(device: Handle, events: c_ulonglong, set: *mut Set) -> Code {
    code(find("nvmlDeviceRegisterEvents", device).and_then(|(_, found)| {
        if events != XID {
            return Err(NOT_SUPPORTED);
        }
        let told = passed(&found.device.xids, |(at_ms, _)| *at_ms);
        *unsafe { &*set }.lock().unwrap() = Some((found.at, told));
        Ok(())
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(set: *mut Set, into: *mut nvmlEventData_t, _wait_ms: c_uint) -> Code {
    code(enter("nvmlEventSetWait_v2").and_then(|script| {
        let mut set = unsafe { &*set }.lock().unwrap();
        let Some((at, told)) = set.as_mut() else { return Err(TIMEOUT) };
        let device = script.devices.get(*at).ok_or(TIMEOUT)?;
        let has_passed = *told < passed(&device.xids, |(at_ms, _)| *at_ms);
        let (_, number) = device.xids.get(*told).filter(|_| has_passed).ok_or(TIMEOUT)?;
        *told += 1;
        unsafe {
            (*into).device = handle(*at, None).cast();
            ((*into).eventType, (*into).eventData) = (XID, *number);
        }
        Ok(())
    }))
}
