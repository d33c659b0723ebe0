//! All subvolumes of a file system, with ways to find one.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::list::{Listed, Listing, Method, Scope, Unreachable, list};
use crate::types::{SubvolId, Uuid};

/// The subvolumes of a file system at one moment, indexed. One sweep makes it;
/// looking up makes no system call.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tree = btrfs_ops::SubvolumeTree::read(std::fs::File::open("/srv/store1")?)?;
/// if let Some(app) = tree.at_path("containers/app/rootfs") {
///     for snapshot in app.info.uuid.iter().flat_map(|uuid| tree.snapshots_of(*uuid)) {
///         println!("{}", snapshot.path.display());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SubvolumeTree {
    listed: Vec<Listed>,
    by_path: HashMap<PathBuf, usize>,
    by_uuid: HashMap<Uuid, usize>,
    by_parent_uuid: HashMap<Uuid, Vec<usize>>,
    by_received_uuid: HashMap<Uuid, Vec<usize>>,
    children: HashMap<SubvolId, Vec<usize>>,
    unreachable: Vec<Unreachable>,
    pending_deletion: Option<Vec<SubvolId>>,
    method: Method,
}

impl SubvolumeTree {
    /// Reads all subvolumes of the file system of `fs`; see [`list`] with
    /// [`Scope::Filesystem`].
    ///
    /// # Errors
    ///
    /// As [`list`].
    ///
    /// # Privileges
    ///
    /// As [`list`].
    pub fn read(fs: impl AsFd) -> Result<Self> {
        Ok(Self::new(list(fs, Scope::Filesystem)?))
    }

    /// Indexes a listing; paths are then what its scope made of them.
    #[must_use]
    pub fn new(listing: Listing) -> Self {
        let mut tree = Self {
            by_path: HashMap::with_capacity(listing.subvolumes.len()),
            by_uuid: HashMap::with_capacity(listing.subvolumes.len()),
            by_parent_uuid: HashMap::new(),
            by_received_uuid: HashMap::new(),
            children: HashMap::new(),
            listed: listing.subvolumes,
            unreachable: listing.unreachable,
            pending_deletion: listing.pending_deletion,
            method: listing.method,
        };
        for (i, Listed { path, info }) in tree.listed.iter().enumerate() {
            tree.by_path.insert(path.clone(), i);
            if let Some(uuid) = info.uuid {
                tree.by_uuid.insert(uuid, i);
            }
            if let Some(uuid) = info.parent_uuid {
                tree.by_parent_uuid.entry(uuid).or_default().push(i);
            }
            if let Some(uuid) = info.received_uuid {
                tree.by_received_uuid.entry(uuid).or_default().push(i);
            }
            if let Some(parent) = info.parent {
                tree.children.entry(parent).or_default().push(i);
            }
        }
        tree
    }

    /// All of them, by id, which is the order of creation.
    #[must_use]
    pub fn all(&self) -> &[Listed] {
        &self.listed
    }

    /// The one with this id.
    #[must_use]
    pub fn id(&self, id: SubvolId) -> Option<&Listed> {
        let at = self
            .listed
            .binary_search_by_key(&id, |listed| listed.info.id);
        self.listed.get(at.ok()?)
    }

    /// The one at this path below the top level.
    #[must_use]
    pub fn at_path(&self, path: impl AsRef<Path>) -> Option<&Listed> {
        self.listed.get(*self.by_path.get(path.as_ref())?)
    }

    /// The one with this UUID of its own.
    #[must_use]
    pub fn uuid(&self, uuid: Uuid) -> Option<&Listed> {
        self.listed.get(*self.by_uuid.get(&uuid)?)
    }

    /// Snapshots of the subvolume with this UUID, oldest first.
    pub fn snapshots_of(&self, uuid: Uuid) -> impl Iterator<Item = &Listed> {
        self.some(self.by_parent_uuid.get(&uuid))
    }

    /// Those that were received from the subvolume with this UUID, and read-only
    /// snapshots of those.
    pub fn received_from(&self, uuid: Uuid) -> impl Iterator<Item = &Listed> {
        self.some(self.by_received_uuid.get(&uuid))
    }

    /// Those directly nested in the subvolume with this id.
    pub fn children(&self, id: SubvolId) -> impl Iterator<Item = &Listed> {
        self.some(self.children.get(&id))
    }

    fn some<'a>(&'a self, found: Option<&'a Vec<usize>>) -> impl Iterator<Item = &'a Listed> {
        let found = found.into_iter().flatten();
        found.filter_map(|&i| self.listed.get(i))
    }

    /// What could not be listed.
    #[must_use]
    pub fn unreachable(&self) -> &[Unreachable] {
        &self.unreachable
    }

    /// Deleted and not cleaned yet; `None` if the method does not show it.
    #[must_use]
    pub fn pending_deletion(&self) -> Option<&[SubvolId]> {
        self.pending_deletion.as_deref()
    }

    /// How it was made.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }
}
