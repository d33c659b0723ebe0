//! Snapshots of several subvolumes at one point in time of those who write.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::filesystem::sync;
use crate::subvolume::{Access, Subvolume, target_in};
use crate::types::Generation;
use crate::uapi;

/// Stops those who write, and lets them go on: a container's cgroup, a database
/// in backup mode. Not `fsfreeze`: on a frozen file system a snapshot waits for
/// the thaw.
pub trait Freeze {
    /// Returns when nobody writes any more.
    ///
    /// # Errors
    ///
    /// Whatever went wrong; [`thaw`](Self::thaw) is called all the same, as some
    /// may be frozen.
    fn freeze(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

    /// Lets all go on. Called exactly once after each [`freeze`](Self::freeze).
    ///
    /// # Errors
    ///
    /// Whatever went wrong.
    fn thaw(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// Nothing to freeze: each snapshot is consistent by itself.
impl Freeze for () {
    fn freeze(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }

    fn thaw(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }
}

/// One snapshot of a group: of what, and where to.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// The subvolume.
    pub source: &'a Subvolume,
    /// The directory for the snapshot. Snapshots into different directories
    /// share commits; into the same one they wait for each other.
    pub parent: BorrowedFd<'a>,
    /// The name of the snapshot.
    pub name: OsString,
}

/// What [`snapshot_group`] did.
#[derive(Debug)]
#[non_exhaustive]
pub struct GroupSnapshot {
    /// The snapshots, in the order of the members.
    pub snapshots: Vec<Subvolume>,
    /// In which transaction each was made.
    pub transactions: Vec<Generation>,
    /// What was written out before, so that it need not be while frozen.
    pub prepared: Duration,
    /// From before the freeze to after the thaw.
    pub frozen: Duration,
}

impl GroupSnapshot {
    /// All were made in one transaction: they are consistent with each other
    /// even without a freeze.
    #[must_use]
    pub fn single_transaction(&self) -> bool {
        self.transactions.windows(2).all(|pair| pair[0] == pair[1])
    }
}

/// Thaws when it goes, unless that was done.
struct Thaw<'f>(Option<&'f mut dyn Freeze>);

impl Drop for Thaw<'_> {
    fn drop(&mut self) {
        if let Some(freezer) = self.0.take() {
            let _ = freezer.thaw();
        }
    }
}

/// Writes out what is dirty, freezes, takes a snapshot of every member at once,
/// thaws. All snapshots are taken or none: those made before an error are
/// deleted. The freezer is thawed in any case, even by a panic.
///
/// The snapshots are durable when this returns. While frozen it takes about a
/// commit (milliseconds) and what was written since the beginning.
///
/// # Errors
///
/// [`ErrorKind::Freeze`] with what the freezer said; if thawing failed, the
/// snapshots are there and the error says so. Else as
/// [`Subvolume::snapshot`].
///
/// # Privileges
///
/// As [`Subvolume::snapshot`]; deleting after an error as
/// [`delete`](crate::delete).
///
/// # Examples
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::os::fd::AsFd;
/// use btrfs_ops::{Access, Member, Subvolume, snapshot_group};
///
/// let (data, log) = (Subvolume::open("/srv/db/data")?, Subvolume::open("/srv/db/log")?);
/// let (to_data, to_log) = (std::fs::File::open("/srv/snap/data")?, std::fs::File::open("/srv/snap/log")?);
/// let members = [
///     Member { source: &data, parent: to_data.as_fd(), name: "now".into() },
///     Member { source: &log, parent: to_log.as_fd(), name: "now".into() },
/// ];
/// let group = snapshot_group(&members, Access::ReadOnly, &mut ())?;
/// println!("frozen for {:?}, one transaction: {}", group.frozen, group.single_transaction());
/// # Ok(())
/// # }
/// ```
pub fn snapshot_group(
    members: &[Member<'_>],
    access: Access,
    freezer: &mut dyn Freeze,
) -> Result<GroupSnapshot> {
    const OP: &str = "snapshot group";
    let failed = |what: &str, error: Box<dyn std::error::Error + Send + Sync>| {
        Error::message(ErrorKind::Freeze, OP, what, error.to_string())
    };
    let began = Instant::now();
    for member in members {
        sync(member.source)?;
    }
    let prepared = began.elapsed();
    let began = Instant::now();
    let frozen = freezer.freeze();
    let mut thaw = Thaw(Some(freezer));
    if let Err(error) = frozen {
        return Err(failed("freeze", error));
    }
    let results: Vec<Result<Subvolume>> = thread::scope(|scope| {
        let threads: Vec<_> = members
            .iter()
            .map(|member| {
                scope.spawn(|| member.source.snapshot(member.parent, &member.name, access))
            })
            .collect();
        let lost = || Error::message(ErrorKind::Other, OP, "a thread", "panicked");
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(lost())))
            .collect()
    });
    let thawed = thaw.0.take().map_or(Ok(()), |freezer| freezer.thaw());
    let frozen = began.elapsed();
    let mut snapshots = Vec::new();
    let mut first_error = None;
    for (member, result) in members.iter().zip(results) {
        match result {
            Ok(snapshot) => snapshots.push((member, snapshot)),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    if let Some(mut error) = first_error {
        for (member, snapshot) in snapshots {
            let _ = uapi::snap_destroy_by_id(member.parent, snapshot.id()?.get());
        }
        if let Err(thaw) = thawed {
            error = error.noted(format!("and thawing failed: {thaw}"));
        }
        return Err(error);
    }
    if let Err(error) = thawed {
        let made: Vec<_> = members
            .iter()
            .map(|member| target_in(member.parent, &member.name))
            .collect();
        return Err(failed("thaw", error).noted(format!("taken: {}", made.join(", "))));
    }
    let snapshots: Vec<_> = snapshots
        .into_iter()
        .map(|(_, snapshot)| snapshot)
        .collect();
    let transactions = snapshots
        .iter()
        .map(|snapshot| Ok(snapshot.info()?.otransid))
        .collect::<Result<_>>()
        .map_err(|error| error.noted(format!("of {} snapshots", members.len())))?;
    Ok(GroupSnapshot {
        snapshots,
        transactions,
        prepared,
        frozen,
    })
}
