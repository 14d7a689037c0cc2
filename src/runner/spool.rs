//! The spool: burn that is not acknowledged yet, on disk.
//!
//! One file an attempt, locked (flock) by front and keeper while one of them lives: whoever gets the lock of a file
//! knows that nobody meters its job any more. Layout:
//!
//! ```text
//! header, JSON, one line, filled up with spaces to a multiple of 4096 bytes
//! slot 0, slot 1: a record each, as long as the header says, written in turn; the newer whole one counts
//! final record: as long as it is; once it is whole, only it counts
//! ```
//!
//! A record is `CHECKSUM JSON\n`. A torn write spoils one slot, and the other holds the reading before it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::origin::Beginning;
use crate::domain::units::Nanocredits;
use crate::domain::usage::Usage;
use crate::ledger::attempt_secret::AttemptSecret;
use crate::ledger::protocol::{AttemptIdentity, ClosedPeriod, Finish, Resources};
use crate::sys::process::boot_id;
use crate::sys::trust;

/// The header fills a multiple of this, and a reading has as much room at least.
pub(super) const SLOT_BYTES: usize = 4096;
/// Room for a reading of many devices: the usage of one takes some 150 bytes, twice where a period has ended.
pub(super) const SLOT_BYTES_WITH_GPUS: usize = 65_536;
/// No path of a file: those are absolute.
const IN_MEMORY: &str = "memory";
const HEADER_BYTES_MAX: usize = 1024 * 1024;
/// Longer than any id, user or location that jobmeter has taken.
const NAME_BYTES_MAX: usize = 4096;

/// What does not change, written before the command starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// `jobmeter.spool/1`.
    pub schema: String,
    /// Who.
    pub identity: AttemptIdentity,
    /// Where its burn goes.
    pub ledger: String,
    /// A group of the same path on another boot is another group.
    pub boot_id: String,
    /// What to freeze, read, kill and remove.
    pub containment: crate::sys::containment::ContainmentSpec,
    /// µs since 1970.
    pub started_at_us: i64,
    /// The same by `CLOCK_BOOTTIME` of that boot; `None` from a version that did not keep it.
    #[serde(default)]
    pub started_boottime_us: Option<u64>,
    /// How fast at most, as it was opened with.
    #[serde(default)]
    pub resources: Resources,
    /// The job's own limit.
    #[serde(default)]
    pub limit: Option<Nanocredits>,
    /// How much room a reading has.
    #[serde(default = "least_slot_bytes")]
    pub slot_bytes: usize,
    /// The socket on which it is answered, which goes with it.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// With which whoever settles it speaks for it; `None` from a version whose attempts had none.
    #[serde(default)]
    pub secret: Option<AttemptSecret>,
}

impl Header {
    /// By the clock that is never set, where the machine runs since.
    pub(super) fn began(&self) -> Beginning {
        let boottime_us = self.started_boottime_us.filter(|_| self.boot_id == boot_id());
        Beginning { realtime_us: self.started_at_us, boottime_us }
    }
}

/// The newest reading.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Increases.
    pub seq: u64,
    /// Since the attempt began.
    pub usage: Usage,
    /// Which period pays; `None` before the attempt was open.
    pub period: Option<i64>,
    /// What an earlier period still has to be told.
    pub closed: Option<ClosedPeriod>,
    /// µs since 1970.
    pub at_us: i64,
    /// The same by `CLOCK_BOOTTIME`.
    #[serde(default)]
    pub boot_us: u64,
    /// How much of what its GPUs did was not read yet.
    #[serde(default)]
    pub gpu_age_us: u64,
    /// Of the rate card that the attempt was opened with.
    #[serde(default)]
    pub rates_version: Option<u64>,
    /// Once all is settled: what the ledger has to be told.
    pub finish: Option<Finish>,
}

/// An attempt's file, locked.
#[derive(Debug)]
pub struct Spool {
    file: Flock<File>,
    path: PathBuf,
    header_bytes: usize,
    slot_bytes: usize,
    seq: u64,
}

fn least_slot_bytes() -> usize {
    SLOT_BYTES
}

/// FNV-1a: enough to tell a torn record from a whole one.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn encode(record: &Record) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(record)?;
    let mut bytes = format!("{:016x} ", checksum(&json)).into_bytes();
    bytes.extend_from_slice(&json);
    bytes.push(b'\n');
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Option<Record> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    let (sum, json) = (line.get(..16)?, line.get(17..)?);
    let sum = u64::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (checksum(json) == sum).then(|| serde_json::from_slice(json).ok()).flatten()
}

fn lock(file: File, path: &Path) -> io::Result<Flock<File>> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| io::Error::new(io::Error::from(errno).kind(), format!("{} is in use", path.display())))
}

/// What is written in a spool decides which processes are killed and which attempts are settled: root keeps and reads it only
/// where nobody else can put something in its place.
///
/// # Errors
/// Where somebody else can, and this process is root.
pub(super) fn out_of_others_reach(directory: &Path) -> io::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    match trust::believe(directory) {
        Err(why) if !why.is_missing() => Err(why.into()),
        _ => Ok(()),
    }
}

/// No link, and nobody else's: what is moved or removed there is this user's.
pub(super) fn is_own_folder(path: &Path) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir() && meta.uid() == own)
}

/// Opens a file that this user has made, and no other: what somebody else put there says what he likes of other people's
/// processes and attempts. No link is followed, and a pipe in its place keeps nobody waiting.
fn open_own(path: &Path, write: bool) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let not_ours = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
    let file = match OpenOptions::new().read(true).write(write).custom_flags(flags).open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(not_ours("is a link".to_owned())),
        opened => opened?,
    };
    let (meta, own) = (file.metadata()?, nix::unistd::geteuid().as_raw());
    if !meta.is_file() {
        return Err(not_ours("expected a plain file".to_owned()));
    }
    if meta.nlink() > 1 {
        return Err(not_ours("has other names as well".to_owned()));
    }
    if meta.uid() != own {
        return Err(not_ours(format!("belongs to the user {}, not to {own}", meta.uid())));
    }
    Ok(file)
}

impl Spool {
    /// Makes the file of a new attempt in `directory`, which is made as well.
    ///
    /// # Errors
    /// Where the directory cannot be made or written.
    pub fn create(directory: &Path, header: &Header) -> io::Result<Self> {
        out_of_others_reach(directory)?;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        // Somebody else may have been quicker.
        out_of_others_reach(directory)?;
        let path = directory.join(format!("{}.spool", header.identity.attempt));
        // Made under another name and locked before it gets its own, so that nobody takes it for left over.
        let hidden = directory.join(format!(".{}.new", header.identity.attempt));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&hidden)?;
        let file = lock(file, &hidden)?;
        let bytes = laid_out(header)?;
        file.write_all_at(&bytes, 0)?;
        std::fs::rename(&hidden, &path)?;
        Ok(Self { file, path, header_bytes: bytes.len(), slot_bytes: header.slot_bytes, seq: 0 })
    }

    /// In memory, where nothing can be kept on a disk and something else keeps what was reported.
    ///
    /// # Errors
    /// Where the kernel has no memory left.
    pub fn in_memory(header: &Header) -> io::Result<Self> {
        let path = PathBuf::from(IN_MEMORY);
        let file = File::from(memfd_create(c"spool", MFdFlags::MFD_CLOEXEC)?);
        let bytes = laid_out(header)?;
        file.write_all_at(&bytes, 0)?;
        let file = lock(file, &path)?;
        Ok(Self { file, path, header_bytes: bytes.len(), slot_bytes: header.slot_bytes, seq: 0 })
    }

    /// Takes over the file of an attempt that nobody meters any more: `None` where it is locked.
    ///
    /// # Errors
    /// Where it cannot be read, or is no spool file of this version.
    pub fn adopt(path: &Path) -> io::Result<Option<(Self, Header, Record)>> {
        let file = open_own(path, true)?;
        let Ok(file) = lock(file, path) else { return Ok(None) };
        if !path.exists() {
            // Settled by somebody else between the open and the lock.
            return Ok(None);
        }
        let (header, record, header_bytes) = read(&file, path)?;
        let (seq, slot_bytes) = (record.seq, header.slot_bytes);
        Ok(Some((Self { file, path: path.to_owned(), header_bytes, slot_bytes, seq }, header, record)))
    }

    /// Reads a file without its lock, for a list.
    ///
    /// # Errors
    /// As [`Self::adopt`].
    pub fn peek(path: &Path) -> io::Result<(Header, Record)> {
        let file = open_own(path, false)?;
        read(&file, path).map(|(header, record, _)| (header, record))
    }

    /// The newest whole record, whoever wrote it.
    ///
    /// # Errors
    /// As [`Self::adopt`].
    pub fn newest(&self) -> io::Result<Record> {
        read(&self.file, &self.path).map(|(_, record, _)| record)
    }

    /// Whether a jobmeter that lives holds the file.
    #[must_use]
    pub fn is_locked(path: &Path) -> bool {
        let Ok(file) = open_own(path, false) else { return false };
        Flock::lock(file, FlockArg::LockSharedNonblock).is_err()
    }

    /// What becomes of what the ledger did not take, for people.
    #[must_use]
    pub(super) fn kept_in(&self) -> String {
        if self.is_in_memory() {
            return "the relay settles it with what it was told last".to_owned();
        }
        format!("it is kept in {}; `jobmeter spool flush` sends it", self.path.display())
    }

    fn is_in_memory(&self) -> bool {
        self.path == Path::new(IN_MEMORY)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a reading, or with `finish` the final one. It is in the kernel then, and survives every death of
    /// processes; [`Self::sync`] makes it survive a power cut.
    ///
    /// # Errors
    /// Where the disk is full or broken.
    pub fn write(&mut self, mut record: Record) -> io::Result<()> {
        self.seq = self.seq.saturating_add(1);
        record.seq = self.seq;
        let bytes = encode(&record)?;
        let is_final = record.finish.is_some();
        if !is_final && bytes.len() > self.slot_bytes {
            return Err(io::Error::other(format!("{}: a record is too long for its slot", self.path.display())));
        }
        let slot = if is_final { 2 } else { usize::try_from(self.seq % 2).unwrap_or(0) };
        let offset = self.header_bytes + slot * self.slot_bytes;
        self.file.write_all_at(&bytes, u64::try_from(offset).unwrap_or(u64::MAX))
    }

    /// A second handle for [`File::sync_data`], which may take long and so runs elsewhere.
    ///
    /// # Errors
    /// Where the kernel has no descriptor left.
    pub fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// After the ledger's acknowledgement: kept aside for a while, so that it can be sent again after a restore.
    ///
    /// # Errors
    /// Where the directory cannot be written.
    pub fn acknowledge(&self) -> io::Result<()> {
        if self.is_in_memory() {
            return Ok(());
        }
        let directory = self.path.parent().unwrap_or(Path::new(".")).join("acknowledged");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        if !is_own_folder(&directory) {
            return Err(io::Error::other(format!("{}: expected a folder of this user", directory.display())));
        }
        let name = self.path.file_name().unwrap_or_default();
        std::fs::rename(&self.path, directory.join(name))
    }

    /// Nothing was started under it: it goes.
    ///
    /// # Errors
    /// Where the directory cannot be written.
    pub fn discard(&self) -> io::Result<()> {
        if self.is_in_memory() {
            return Ok(());
        }
        std::fs::remove_file(&self.path)
    }
}

/// The header's line, filled up.
fn laid_out(header: &Header) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(header)?;
    bytes.push(b'\n');
    bytes.resize(bytes.len().next_multiple_of(SLOT_BYTES), b' ');
    Ok(bytes)
}

fn read(file: &File, path: &Path) -> io::Result<(Header, Record, usize)> {
    let not_ours = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
    let mut bytes = Vec::new();
    let mut offset = 0;
    let mut chunk = vec![0_u8; 64 * 1024];
    loop {
        let length = file.read_at(&mut chunk, offset)?;
        bytes.write_all(chunk.get(..length).unwrap_or_default())?;
        offset += u64::try_from(length).unwrap_or(0);
        if length == 0 || bytes.len() > HEADER_BYTES_MAX * 8 {
            break;
        }
    }
    let line_end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| not_ours("has no header"))?;
    let header: Header = serde_json::from_slice(bytes.get(..line_end).unwrap_or_default())
        .map_err(|error| not_ours(&format!("is no spool file: {error}")))?;
    let identity = &header.identity;
    let names = [&identity.job, &identity.user, &identity.task, &header.ledger];
    let is_sound = line_end <= HEADER_BYTES_MAX
        && (SLOT_BYTES..=HEADER_BYTES_MAX).contains(&header.slot_bytes)
        && names.iter().all(|name| name.len() <= NAME_BYTES_MAX);
    if !is_sound {
        return Err(not_ours("is larger than a spool file can be"));
    }
    if header.schema != "jobmeter.spool/1" {
        return Err(not_ours(&format!("has the schema {}, which this version does not know", header.schema)));
    }
    let header_bytes = (line_end + 1).next_multiple_of(SLOT_BYTES);
    let part =
        |slot: usize| bytes.get(header_bytes.saturating_add(slot.saturating_mul(header.slot_bytes))..).and_then(decode);
    let record = part(2)
        .filter(|record| record.finish.is_some())
        .or_else(|| [part(0), part(1)].into_iter().flatten().max_by_key(|record| record.seq));
    Ok((header, record.unwrap_or_default(), header_bytes))
}
