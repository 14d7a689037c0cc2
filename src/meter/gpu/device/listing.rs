//! What a device is, once NVML has told.

use super::Device;
use crate::meter::gpu::identity::UNKNOWN;
use crate::meter::gpu::wire::ListedDevice;

impl Device {
    /// NVML has not told of it yet. What it did meanwhile is in the driver's ring, if that does not take long.
    pub fn await_listing(&mut self) {
        self.is_listed = false;
    }

    /// NVML has told its devices. It goes on under the name by which it was charged before; what is not there is not the job's.
    pub fn find_in(&mut self, listed: &[ListedDevice], now_us: u64) {
        if std::mem::replace(&mut self.is_listed, true) {
            return;
        }
        let own = self.info.clone();
        let (uuid, mig) = (own.uuid.as_str(), own.mig.as_ref().map(|mig| mig.index));
        // A number of a device that is cut into MIG devices is that of all of them, which are charged as this one.
        let is_it = |info: &&ListedDevice| match uuid.strip_prefix(UNKNOWN) {
            Some(_) => {
                info.index == own.index && mig.is_none_or(|index| info.mig.as_ref().map(|of| of.index) == Some(index))
            }
            None => info.uuid.starts_with(uuid) || info.mig.as_ref().is_some_and(|of| of.parent.starts_with(uuid)),
        };
        let Some(info) = listed.iter().find(is_it) else {
            self.advance(now_us, self.held);
            (self.figures.declared, self.present) = (false, false);
            self.looked_at_us = self.looked_at_us.max(now_us);
            self.notes.insert("there is no such device".to_owned());
            return;
        };
        let whole = info.mig.as_ref().filter(|_| mig.is_none()).map(|of| of.parent.clone());
        self.nvml_uuid = Some(whole.unwrap_or_else(|| info.uuid.clone()));
        self.info = ListedDevice { uuid: own.uuid, mig: own.mig, ..info.clone() };
    }
}
