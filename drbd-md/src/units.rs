//! Units and identifiers.

use std::fmt;

/// A length or position in 512-byte sectors, whatever the device's own sector size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sectors(pub u64);

impl Sectors {
    /// Returns the length in bytes, saturating.
    pub fn bytes(self) -> u64 {
        self.0.saturating_mul(512)
    }
}

impl fmt::Display for Sectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

/// A generation identifier of the data ("UUID" in DRBD's words; 64 bits).
///
/// The lowest bit says that the node was primary when the value was written; it takes no part in
/// comparisons of generations, see [`Uuid::same_generation`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uuid(pub u64);

impl Uuid {
    /// The value of freshly created metadata (`UUID_JUST_CREATED`): no data generation yet.
    pub const JUST_CREATED: Uuid = Uuid(4);

    pub(crate) fn from_disk(raw: u64) -> Option<Uuid> {
        (raw != 0).then_some(Uuid(raw))
    }

    pub(crate) fn to_disk(this: Option<Uuid>) -> u64 {
        this.map_or(0, |u| u.0)
    }

    /// Tells whether both name the same generation, leaving out the primary bit.
    pub fn same_generation(self, other: Uuid) -> bool {
        self.0 & !1 == other.0 & !1
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uuid({self})")
    }
}
