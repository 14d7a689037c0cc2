//! Which devices are the job's from its start: by `--gpus`, by what a scheduler has set, or by what the container sees.
//! What is declared is charged as allocated whether it is used or not; a device that is not declared is charged from the
//! moment at which a process of the job appears on it.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::identity::UNKNOWN;
use super::pbs;
use super::wire::{ListedDevice, Mig};

/// What the numbers of a variable mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbers {
    /// The how manieth of those that can be opened.
    Ordinals,
    /// N of `/dev/nvidiaN`. Where a device controller shows no other devices than these, they may be numbered anew.
    Minors,
}

/// What the environment says, in the order in which it is believed: first what binds a process to its devices, then what its step has, then
/// its job, and last what the container runtime was told.
const VARIABLES: [(&str, Numbers); 7] = [
    ("CUDA_VISIBLE_DEVICES", Numbers::Ordinals),
    ("SLURM_STEP_GPUS", Numbers::Minors),
    ("SLURM_JOB_GPUS", Numbers::Minors),
    // HTCondor: CUDA0, CUDA1 or the beginnings of UUIDs.
    ("_CONDOR_AssignedGPUs", Numbers::Ordinals),
    // Grid Engine: numbers between spaces.
    ("SGE_HGR_gpu", Numbers::Ordinals),
    (pbs::VARIABLE, Numbers::Ordinals),
    (OF_CONTAINER, Numbers::Ordinals),
];
const OF_CONTAINER: &str = "NVIDIA_VISIBLE_DEVICES";
/// With these a scheduler says that the devices are this job's alone.
const EXCLUSIVE_BY: [&str; 3] = ["SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "_CONDOR_AssignedGPUs"];
/// And with these that they are lent in parts.
const SHARED_BY: [&str; 2] = [SHARED_GPUS, "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"];
/// Slurm's, where a job has a part of a device.
pub const SHARED_GPUS: &str = "SLURM_SHARDS_ON_NODE";
/// All of them: what a meter has to see of its environment.
pub fn variables() -> impl Iterator<Item = &'static str> {
    VARIABLES.into_iter().map(|(name, _)| name).chain(EXCLUSIVE_BY).chain(SHARED_BY)
}

/// Of which no device is the job's.
const NONE: [&str; 5] = ["", "none", "void", "NoDevFiles", "-1"];

/// `--gpus`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All that can be opened.
    All,
    /// None from the start.
    None,
    /// UUIDs or the first letters of them, indexes, or `GPU:MIG` indexes.
    These(Vec<String>),
}

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "all" => Ok(Self::All),
            "none" => Ok(Self::None),
            list => {
                let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
                match names.iter().find(|name| !is_name(name)) {
                    Some(_) => Err("use all, none, or UUIDs and indexes such as 0,1 or GPU-8932f937".to_owned()),
                    None => Ok(Self::These(names)),
                }
            }
        }
    }
}

fn is_name(name: &str) -> bool {
    let index = name.split(':').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    index || name.starts_with("GPU-") || name.starts_with("MIG-")
}

/// Which devices, and how that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// By UUID.
    pub uuids: BTreeSet<String>,
    /// No other job has them.
    pub exclusive: bool,
    /// Who has said it.
    pub by: String,
    /// What could not be understood.
    pub notes: Vec<String>,
}

/// Resolves it once, at the start.
///
/// # Errors
/// Where `--gpus` names what is not there.
pub fn declared(
    selection: Option<&Selection>,
    exclusive: bool,
    environment: &dyn Fn(&str) -> Option<String>,
    devices: &[ListedDevice],
    in_container: bool,
) -> Result<Declared, String> {
    let all = || devices.iter().map(|device| device.uuid.clone()).collect::<BTreeSet<_>>();
    let none = || Declared { exclusive, ..Declared::default() };
    match selection {
        Some(Selection::All) => return Ok(Declared { uuids: all(), by: "--gpus".to_owned(), ..none() }),
        Some(Selection::None) => return Ok(Declared { by: "--gpus".to_owned(), ..none() }),
        Some(Selection::These(names)) => {
            let mut declared = Declared { by: "--gpus".to_owned(), ..none() };
            for name in names {
                declared.uuids.extend(find(name, devices).ok_or_else(|| unknown(name, devices))?);
            }
            return Ok(declared);
        }
        None => {}
    }
    for (variable, numbers) in VARIABLES {
        let Some(value) = environment(variable) else { continue };
        // The numbers of a container runtime are the host's, where other devices may stand.
        if in_container && variable == OF_CONTAINER {
            break;
        }
        let is_set = |name: &&str| environment(name).is_some();
        let is_alone = EXCLUSIVE_BY.iter().any(is_set) && !SHARED_BY.iter().any(is_set);
        let mut declared = Declared { by: variable.to_owned(), exclusive: exclusive || is_alone, ..none() };
        match value.trim() {
            nothing if NONE.contains(&nothing) => {}
            "all" => declared.uuids = all(),
            list => take_list(list, numbers, devices, &mut declared),
        }
        return Ok(declared);
    }
    Ok(if in_container { Declared { uuids: all(), by: "the container".to_owned(), ..none() } } else { none() })
}

/// What stands for devices that were named and cannot be seen, where nobody can be asked: they are charged all the same.
#[must_use]
pub fn unseen(
    selection: Option<&Selection>,
    environment: &dyn Fn(&str) -> Option<String>,
    devices: &[ListedDevice],
) -> Vec<ListedDevice> {
    let of_environment = || {
        let set = VARIABLES.into_iter().find_map(|(variable, _)| environment(variable))?;
        Some(names(&set).map(str::to_owned).filter(|name| is_name(name)).collect::<Vec<_>>())
    };
    let named = match selection {
        Some(Selection::These(names)) => names.clone(),
        Some(Selection::All | Selection::None) => Vec::new(),
        None => of_environment().unwrap_or_default(),
    };
    let unseen = named.into_iter().filter(|name| find(name, devices).is_none());
    let device = |name: String| {
        let index = name.split(':').next().and_then(|gpu| gpu.parse().ok()).unwrap_or(u32::MAX);
        let mig = name.split_once(':').and_then(|(_, mig)| mig.parse().ok());
        let mig = mig.map(|index| Mig { index, ..Mig::default() });
        let uuid = if name.contains('-') { name } else { format!("{UNKNOWN}{name}") };
        ListedDevice { uuid, index, mig, ..ListedDevice::default() }
    };
    unseen.map(device).collect()
}

/// Between commas, and in Grid Engine's between spaces. HTCondor writes CUDA0 for 0.
fn names(list: &str) -> impl Iterator<Item = &str> {
    let names = list.split([',', ' ']).map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| name.strip_prefix("CUDA").unwrap_or(name))
}

/// CUDA ignores the first name that is wrong, and what stands behind it.
fn take_list(list: &str, numbers: Numbers, devices: &[ListedDevice], declared: &mut Declared) {
    let by_minors = (numbers == Numbers::Minors).then(|| of_minors(list, devices)).flatten();
    if let Some(found) = by_minors {
        declared.uuids.extend(found);
        return;
    }
    for name in names(list) {
        match of_ordinal(name, devices).or_else(|| find(name, devices)) {
            Some(found) => declared.uuids.extend(found),
            None => {
                declared.notes.push(format!("{}: {}", declared.by, unknown(name, devices)));
                return;
            }
        }
    }
}

/// All of a list of minors, or as many devices as are here. Slurm numbers devices by their files, and those that a device controller
/// keeps away from a job cannot be seen by it.
fn of_minors(list: &str, devices: &[ListedDevice]) -> Option<Vec<String>> {
    let minors: Vec<u32> = names(list).map(str::parse).collect::<Result<_, _>>().ok()?;
    let of = |minor: u32| {
        let found = devices.iter().filter(|device| device.minor == Some(minor)).map(|device| device.uuid.clone());
        Some(found.collect::<Vec<_>>()).filter(|found| !found.is_empty())
    };
    let found: Option<Vec<Vec<String>>> = minors.iter().map(|minor| of(*minor)).collect();
    let is_all = indexes(devices).len() == minors.len();
    found
        .map(|found| found.concat())
        .or_else(|| is_all.then(|| devices.iter().map(|device| device.uuid.clone()).collect()))
}

/// Of whole devices, in the order of the PCI bus.
fn indexes(devices: &[ListedDevice]) -> BTreeSet<u32> {
    devices.iter().map(|device| device.index).collect()
}

/// CUDA counts those that can be opened.
fn of_ordinal(name: &str, devices: &[ListedDevice]) -> Option<Vec<String>> {
    let index = indexes(devices).into_iter().nth(name.parse().ok()?)?;
    Some(devices.iter().filter(|device| device.index == index).map(|device| device.uuid.clone()).collect())
}

/// The devices of one name: several where it is a device that is cut into MIG devices.
fn find(name: &str, devices: &[ListedDevice]) -> Option<Vec<String>> {
    let of = |fits: &dyn Fn(&ListedDevice) -> bool| {
        let found: Vec<String> =
            devices.iter().filter(|device| fits(device)).map(|device| device.uuid.clone()).collect();
        (!found.is_empty()).then_some(found)
    };
    if let Some((gpu, mig)) = name.split_once(':') {
        let (gpu, mig): (u32, u32) = (gpu.parse().ok()?, mig.parse().ok()?);
        return of(&|device| device.index == gpu && device.mig.as_ref().is_some_and(|of| of.index == mig));
    }
    if let Ok(index) = name.parse::<u32>() {
        return of(&|device| device.index == index);
    }
    if let Some(old) = name.strip_prefix("MIG-GPU-") {
        return find_old_mig(old, devices);
    }
    // The whole device of a MIG device may be named as well.
    let whole = |device: &ListedDevice, name: &str| {
        device.uuid.starts_with(name) || device.mig.as_ref().is_some_and(|of| of.parent.starts_with(name))
    };
    let found = of(&|device| whole(device, name))?;
    let of_one = devices.iter().filter(|device| found.contains(&device.uuid)).map(|device| device.index);
    // The beginning of a UUID has to be that of one device.
    (of_one.collect::<BTreeSet<_>>().len() == 1).then_some(found)
}

/// `MIG-GPU-UUID/GPU instance/compute instance`, as drivers before 470 wrote it.
fn find_old_mig(text: &str, devices: &[ListedDevice]) -> Option<Vec<String>> {
    let mut parts = text.split('/');
    let parent = format!("GPU-{}", parts.next()?);
    let (gpu, compute): (u32, u32) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let fits = |device: &&ListedDevice| {
        device
            .mig
            .as_ref()
            .is_some_and(|mig| mig.parent == parent && mig.gpu_instance == gpu && mig.compute_instance == compute)
    };
    devices.iter().find(fits).map(|device| vec![device.uuid.clone()])
}

fn unknown(name: &str, devices: &[ListedDevice]) -> String {
    if devices.is_empty() {
        return format!("there is no GPU {name:?}: no GPU can be seen here");
    }
    let all: Vec<String> = devices.iter().map(|device| format!("{} = {}", device.index, device.uuid)).collect();
    format!("there is no GPU {name:?} here, or it is several: {}", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(uuid: &str, index: u32, mig: Option<Mig>) -> ListedDevice {
        ListedDevice { uuid: uuid.to_owned(), index, mig, ..ListedDevice::default() }
    }

    fn devices() -> Vec<ListedDevice> {
        let slice = |index, compute_instance| {
            let parent = "GPU-bb".to_owned();
            Some(Mig { parent, index, gpu_instance: 7, compute_instance, ..Mig::default() })
        };
        vec![
            device("GPU-aa11", 0, None),
            device("MIG-1", 1, slice(0, 0)),
            device("MIG-2", 1, slice(1, 1)),
            device("GPU-aa22", 2, None),
        ]
    }

    fn by(selection: Option<&str>, environment: &[(&str, &str)], in_container: bool) -> Result<Declared, String> {
        let selection = selection.map(|text| text.parse::<Selection>().unwrap());
        let look = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        declared(selection.as_ref(), false, &look, &devices(), in_container)
    }

    fn uuids(found: Result<Declared, String>) -> String {
        found.unwrap().uuids.into_iter().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_flag_names_devices() {
        for (flag, expected) in [
            ("all", "GPU-aa11 GPU-aa22 MIG-1 MIG-2"),
            ("none", ""),
            ("0,2", "GPU-aa11 GPU-aa22"),
            ("GPU-aa1", "GPU-aa11"),
            ("1:1", "MIG-2"),
            ("1", "MIG-1 MIG-2"),
            ("GPU-bb", "MIG-1 MIG-2"),
            ("MIG-2", "MIG-2"),
            ("MIG-GPU-bb/7/1", "MIG-2"),
        ] {
            assert_eq!(uuids(by(Some(flag), &[("CUDA_VISIBLE_DEVICES", "2")], true)), expected, "{flag}");
        }
        for wrong in ["9", "GPU-aa", "1:7", "MIG-GPU-bb/1/1"] {
            assert!(by(Some(wrong), &[], false).unwrap_err().contains("GPU-aa11"), "{wrong}");
        }
        for wrong in ["", "x", "0,,1", "-1"] {
            assert!(wrong.parse::<Selection>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_nobody_can_be_asked_about_is_charged_under_its_name() {
        let names = Selection::These(["0", "7", "2:1", "GPU-zz"].map(str::to_owned).to_vec());
        let found = unseen(Some(&names), &|_| None, &devices());
        let uuids: Vec<_> = found.iter().map(|device| device.uuid.as_str()).collect();
        assert_eq!(uuids, ["GPU-unknown-7", "GPU-unknown-2:1", "GPU-zz"]);
        let all: Vec<_> = devices().into_iter().chain(found).collect();
        assert_eq!(declared(Some(&names), false, &|_| None, &all, false).unwrap().uuids.len(), 4);
        let variable = |name: &str| (name == "CUDA_VISIBLE_DEVICES").then(|| "9,x".to_owned());
        assert_eq!(unseen(None, &variable, &devices()).len(), 1);
    }

    #[test]
    fn without_one_a_scheduler_is_believed_and_then_the_container() {
        assert_eq!(uuids(by(None, &[("CUDA_VISIBLE_DEVICES", "2,0")], false)), "GPU-aa11 GPU-aa22");
        let slurm = by(None, &[("SLURM_JOB_GPUS", "0,2"), ("CUDA_VISIBLE_DEVICES", "2")], false).unwrap();
        assert_eq!((slurm.exclusive, slurm.uuids.into_iter().collect::<Vec<_>>()), (true, vec!["GPU-aa22".to_owned()]));
        let shards = [("SLURM_JOB_GPUS", "0"), ("SLURM_SHARDS_ON_NODE", "2")];
        assert!(!by(None, &shards, false).unwrap().exclusive);
        let wrong = by(None, &[("CUDA_VISIBLE_DEVICES", "0,9,2")], false).unwrap();
        assert_eq!((wrong.uuids.len(), wrong.notes.len()), (1, 1));
        assert_eq!(uuids(by(None, &[("CUDA_VISIBLE_DEVICES", "")], true)), "");
        assert_eq!(uuids(by(None, &[("NVIDIA_VISIBLE_DEVICES", "GPU-aa22")], false)), "GPU-aa22");
        assert_eq!(uuids(by(None, &[("NVIDIA_VISIBLE_DEVICES", "5")], true)), "GPU-aa11 GPU-aa22 MIG-1 MIG-2");
        assert_eq!(uuids(by(None, &[], false)), "");
        assert_eq!(uuids(by(None, &[("_CONDOR_AssignedGPUs", "CUDA0, GPU-aa2")], false)), "GPU-aa11 GPU-aa22");
        assert_eq!(uuids(by(None, &[("SGE_HGR_gpu", "0 2")], false)), "GPU-aa11 GPU-aa22");
    }

    /// Slurm's numbers are those of the device files, which a device controller may keep away or show alone.
    #[test]
    fn a_task_has_the_devices_that_its_step_has_given_it() {
        let with_minor = |uuid: &str, index, minor| ListedDevice { minor: Some(minor), ..device(uuid, index, None) };
        let node = [with_minor("GPU-a", 0, 3), with_minor("GPU-b", 1, 2), with_minor("GPU-c", 2, 1)];
        // All others are refused, and the numbers of NVML are those that it has on the host.
        let constrained = [with_minor("GPU-b", 1, 2), with_minor("GPU-c", 2, 1)];
        let of = |devices: &[ListedDevice], environment: &[(&str, &str)]| {
            let look =
                |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            let found = declared(None, false, &look, devices, false).unwrap();
            assert!(found.exclusive && found.notes.is_empty(), "{found:?}");
            found.uuids.into_iter().collect::<Vec<_>>().join(" ")
        };
        let job = ("SLURM_JOB_GPUS", "1,2,3");
        assert_eq!(of(&node, &[job]), "GPU-a GPU-b GPU-c");
        assert_eq!(of(&node, &[job, ("SLURM_STEP_GPUS", "1,2")]), "GPU-b GPU-c");
        assert_eq!(of(&node, &[job, ("SLURM_STEP_GPUS", "1,2"), ("CUDA_VISIBLE_DEVICES", "1")]), "GPU-b");
        assert_eq!(of(&constrained, &[job, ("CUDA_VISIBLE_DEVICES", "0")]), "GPU-b");
        assert_eq!(of(&constrained, &[("SLURM_STEP_GPUS", "1,2")]), "GPU-b GPU-c");
        assert_eq!(of(&constrained, &[("SLURM_STEP_GPUS", "6,7")]), "GPU-b GPU-c");
    }
}
