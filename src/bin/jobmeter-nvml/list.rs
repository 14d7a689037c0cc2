//! All devices that can be opened.

use jobmeter::meter::gpu::wire::{Listed, ListedDevice, Mig};
use jobmeter::sys::nvml::instance_ids;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::library;

pub(super) fn list(nvml: &Nvml) -> Result<Listed, NvmlError> {
    let mut listed = Listed {
        library: library::path().map(|path| path.display().to_string()).unwrap_or_default(),
        driver: nvml.sys_driver_version().unwrap_or_else(|_| "unknown".to_owned()),
        devices: Vec::new(),
        refused: Vec::new(),
    };
    for index in 0..nvml.device_count()? {
        match nvml.device_by_index(index).and_then(|device| whole(&device, index).map(|found| (device, found))) {
            Ok((device, found)) if device.mig_mode().is_ok_and(|mode| mode.current == 1) => {
                listed.devices.extend(parts(nvml, &device, &found));
            }
            Ok((_, found)) => listed.devices.push(found),
            // Another's, where a device controller keeps them apart.
            Err(error) => listed.refused.push(format!("GPU {index}: {error}")),
        }
    }
    Ok(listed)
}

fn whole(device: &Device<'_>, index: u32) -> Result<ListedDevice, NvmlError> {
    Ok(ListedDevice {
        uuid: device.uuid()?,
        model: device.name().unwrap_or_default(),
        index,
        minor: device.minor_number().ok(),
        memory_bytes: device.memory_info().ok().map(|memory| memory.total),
        mig: None,
    })
}

/// The MIG devices of a device, which itself runs nothing then.
fn parts(nvml: &Nvml, parent: &Device<'_>, of: &ListedDevice) -> Vec<ListedDevice> {
    // The highest count that could be, with gaps.
    let slots = parent.mig_device_count().unwrap_or(0);
    let found = (0..slots).filter_map(|index| Some((index, parent.mig_device_by_index(index).ok()?)));
    found.filter_map(|(index, device)| part(nvml, parent, of, &device, index)).collect()
}

fn part(nvml: &Nvml, parent: &Device<'_>, of: &ListedDevice, device: &Device<'_>, index: u32) -> Option<ListedDevice> {
    let (gpu_instance, compute_instance) = instance_ids(nvml, device).unwrap_or_default();
    let attributes = device.attributes().ok();
    let untold = match parent.gpm_support() {
        Ok(true) => parent.gpm_mig_sample(gpu_instance).err().map(|error| error.to_string()),
        Ok(false) => Some("the device does not tell how busy a GPU instance is (before Hopper)".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    let mig = Mig {
        parent: of.uuid.clone(),
        index,
        gpu_instance,
        compute_instance,
        shares_instance: attributes
            .is_none_or(|slices| slices.compute_instance_slice_count < slices.gpu_instance_slice_count),
        untold,
    };
    let memory_bytes = device.memory_info().ok().map(|memory| memory.total);
    let model = device.name().unwrap_or_else(|_| format!("{} MIG", of.model));
    Some(ListedDevice { uuid: device.uuid().ok()?, model, memory_bytes, mig: Some(mig), ..of.clone() })
}
