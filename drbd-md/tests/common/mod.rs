//! Shared by the tests: the oracle, a seeded generator, and images of killed primaries.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use uml_lab::Lab;

/// Finds drbdmeta: `DRBDMETA`, the usual places, or Debian's package, which a node of the lab has.
///
/// It needs no kernel module for plain files, so it runs here even if it came from a node.
/// `None`, with a printed reason, if there is none and `LAB_REQUIRED` is not 1.
pub(crate) fn drbdmeta() -> Option<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(find_drbdmeta).clone()
}

fn find_drbdmeta() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("DRBDMETA") {
        return Some(path.into());
    }
    let mut places = vec![PathBuf::from("/sbin"), "/usr/sbin".into()];
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("drbd-utils");
    places.push(kept.clone());
    if let Some(found) = places
        .iter()
        .map(|p| p.join("drbdmeta"))
        .find(|p| p.is_file())
    {
        return Some(found);
    }
    let lab = Lab::builder()
        .name("drbdmeta")
        // It is to run on this host.
        .root("/", [])
        .packages(["drbd-utils"])
        .node("node1", |n| n);
    let lab = lab.start_for_test()?;
    let bytes = lab.node("node1").read_file("/sbin/drbdmeta").unwrap();
    std::fs::create_dir_all(&kept).unwrap();
    // Other tests may look for it at the same time: complete or not there.
    let mut new = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempfile_in(&kept)
        .unwrap();
    new.write_all(&bytes).unwrap();
    let path = kept.join("drbdmeta");
    new.into_temp_path().persist(&path).unwrap();
    Some(path)
}

/// How many cases a test tries: `DRBD_MD_CASES`, or so many.
pub(crate) fn cases(default: u64) -> u64 {
    let set = std::env::var("DRBD_MD_CASES").ok();
    set.and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// A directory in memory where there is one: thousands of flushes cost nothing there.
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir()
        && let Ok(dir) = tempfile::tempdir_in(memory)
    {
        return dir;
    }
    tempfile::tempdir().unwrap()
}

/// Runs drbdmeta on a plain file.
pub(crate) fn run_drbdmeta(drbdmeta: &Path, format: &str, image: &Path, args: &[&str]) -> Output {
    run_drbdmeta_at(drbdmeta, format, image, "internal", args)
}

/// Runs drbdmeta on a plain file with metadata at another place.
pub(crate) fn run_drbdmeta_at(
    drbdmeta: &Path,
    format: &str,
    image: &Path,
    place: &str,
    args: &[&str],
) -> Output {
    // "-" for the DRBD device: no minor, no lock file, no question to the kernel.
    let mut command = Command::new(drbdmeta);
    command
        .args(["--force", "-", format])
        .arg(image)
        .arg(place)
        .args(args);
    loop {
        match command.output() {
            // A child that another test started while drbdmeta was written has it open until its own program runs.
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::yield_now();
            }
            output => return output.unwrap(),
        }
    }
}

/// A small generator of pseudo-random numbers, so that a failure is repeated by its seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub(crate) fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    /// A number in `0..n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
    pub(crate) fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// The checksum of the log, written apart from the library's.
pub(crate) fn crc32c_raw(bytes: &[u8]) -> u32 {
    static TABLE: OnceLock<[u32; 256]> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        std::array::from_fn(|i| {
            (0..8).fold(i as u32, |c, _| {
                if c & 1 == 1 {
                    (c >> 1) ^ 0x82f6_3b78
                } else {
                    c >> 1
                }
            })
        })
    });
    bytes.iter().fold(0, |c, b| {
        table[((c ^ u32::from(*b)) & 0xff) as usize] ^ (c >> 8)
    })
}

/// A driver's activity log in memory, which writes its transactions into an image.
pub(crate) struct Log {
    pub(crate) slots: Vec<u32>,
    pub(crate) number: u32,
    pub(crate) context_at: usize,
    pub(crate) blocks: usize,
    pub(crate) stripes: usize,
    pub(crate) stripe_blocks: usize,
    pub(crate) offset: usize,
}

impl Log {
    /// A log of `extents` slots at byte `offset`.
    pub(crate) fn new(extents: usize, stripes: usize, stripe_blocks: usize, offset: usize) -> Log {
        Log {
            slots: vec![u32::MAX; extents],
            number: 0,
            context_at: 0,
            blocks: stripes * stripe_blocks,
            stripes,
            stripe_blocks,
            offset,
        }
    }

    /// Where the block of transaction `number` is in the image.
    pub(crate) fn place(&self, number: u32) -> usize {
        let t = number as usize % self.blocks;
        self.offset + ((t % self.stripes) * self.stripe_blocks + t / self.stripes) * 4096
    }

    /// Moves extents into slots and writes the transaction, as al_write_transaction does.
    pub(crate) fn transaction(&mut self, image: &mut [u8], updates: &[(usize, u32)]) {
        let mut b = vec![0u8; 4096];
        b[0..4].copy_from_slice(&0x69cb_65a2u32.to_be_bytes());
        b[4..8].copy_from_slice(&self.number.to_be_bytes());
        b[14..16].copy_from_slice(&(updates.len() as u16).to_be_bytes());
        for (slot, extent) in updates {
            self.slots[*slot] = *extent;
        }
        for i in 0..64 {
            let (slot, extent) = updates
                .get(i)
                .map_or((0xffff, u32::MAX), |(s, e)| (*s as u16, *e));
            b[36 + 2 * i..38 + 2 * i].copy_from_slice(&slot.to_be_bytes());
            b[164 + 4 * i..168 + 4 * i].copy_from_slice(&extent.to_be_bytes());
        }
        b[16..18].copy_from_slice(&(self.slots.len() as u16).to_be_bytes());
        b[18..20].copy_from_slice(&(self.context_at as u16).to_be_bytes());
        for i in 0..919 {
            let extent = self
                .slots
                .get(self.context_at + i)
                .copied()
                .unwrap_or(u32::MAX);
            b[420 + 4 * i..424 + 4 * i].copy_from_slice(&extent.to_be_bytes());
        }
        self.context_at += 919;
        if self.context_at >= self.slots.len() {
            self.context_at = 0;
        }
        let sum = crc32c_raw(&b);
        b[8..12].copy_from_slice(&sum.to_be_bytes());
        let at = self.place(self.number);
        image[at..at + 4096].copy_from_slice(&b);
        self.number = self.number.wrapping_add(1);
    }
}

/// First difference of two images, for messages.
pub(crate) fn difference(ours: &[u8], theirs: &[u8]) -> Option<String> {
    if ours == theirs {
        return None;
    }
    if ours.len() != theirs.len() {
        return Some(format!("lengths {} and {}", ours.len(), theirs.len()));
    }
    let at = ours.iter().zip(theirs).position(|(a, b)| a != b)?;
    let count = ours.iter().zip(theirs).filter(|(a, b)| a != b).count();
    let end = (at + 16).min(ours.len());
    Some(format!(
        "{count} bytes differ, first at {at} of {}: ours {:02x?}, theirs {:02x?}",
        ours.len(),
        &ours[at..end],
        &theirs[at..end]
    ))
}
