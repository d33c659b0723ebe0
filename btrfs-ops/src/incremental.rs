//! Which snapshot to send the difference to. Pure: two lists in, a plan out.

use crate::subvolume::{Access, SubvolumeInfo};
use crate::types::{SubvolId, Uuid};

/// How a chosen parent is related to what is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Relation {
    /// The last snapshot of the same subvolume before it.
    Previous,
    /// The first snapshot of the same subvolume after it: nothing older is on
    /// both sides.
    Next,
    /// It was made from a snapshot, and this is that snapshot.
    Ancestor,
    /// This was made from it.
    Descendant,
    /// A snapshot of the same subvolume, further away. A source of shared
    /// content, not a parent.
    Sibling,
}

/// Why a snapshot here is of no use for an incremental send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Unusable {
    /// It is writable here.
    Writable,
    /// The target does not have it.
    NotOnTarget,
    /// The target has it, writable: it may have changed there.
    WritableOnTarget,
    /// It is not related to what is to be sent.
    Unrelated,
}

/// A snapshot that both sides have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Common {
    /// Its id here.
    pub id: SubvolId,
    /// Its id on the target.
    pub on_target: SubvolId,
    /// What it is to the snapshot that is to be sent.
    pub relation: Relation,
}

/// How to send a snapshot, from [`incremental`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SendPlan {
    /// The target has this snapshot already, as that subvolume.
    pub already: Option<SubvolId>,
    /// What to send the difference to; `None`: everything has to be sent.
    pub parent: Option<Common>,
    /// More that the target has; content shared with these need not be sent.
    pub clone_sources: Vec<Common>,
    /// The other snapshots here, and why they are of no use.
    pub unusable: Vec<(SubvolId, Unusable)>,
}

impl SendPlan {
    /// Puts parent and clone sources into `options`.
    pub fn apply(&self, options: crate::SendOptions) -> crate::SendOptions {
        let options = self
            .clone_sources
            .iter()
            .fold(options, |options, source| options.clone_source(source.id));
        match self.parent {
            Some(parent) => options.parent(parent.id),
            None => options,
        }
    }
}

/// Chooses the parent and the clone sources for sending `snapshot` to a target
/// that has the subvolumes `there`; `here` are those of the sending side.
///
/// A snapshot is on both sides if it was received there from here, received here
/// from there, or received on both from a third. Only read-only ones count, and
/// on the target only complete ones: those have a received UUID. Of these, the
/// parent is the nearest by age: the last one before, else the first one after,
/// of the same subvolume; else what it was made from or what was made from it.
/// All others that are related become clone sources, nearest first.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use btrfs_ops::{Scope, SendOptions, Subvolume, incremental, list};
///
/// let snapshot = Subvolume::open("/srv/store1/snapshots/app.7")?;
/// let infos = |path: &str| -> Result<Vec<_>, Box<dyn std::error::Error>> {
///     let all = list(std::fs::File::open(path)?, Scope::Filesystem)?.subvolumes;
///     Ok(all.into_iter().map(|listed| listed.info).collect())
/// };
/// let plan = incremental(&snapshot.info()?, &infos("/srv/store1")?, &infos("/backup")?);
/// println!("parent: {:?}", plan.parent);
/// let stream = snapshot.send(&plan.apply(SendOptions::new()))?;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn incremental(
    snapshot: &SubvolumeInfo,
    here: &[SubvolumeInfo],
    there: &[SubvolumeInfo],
) -> SendPlan {
    let mut plan = SendPlan {
        already: on_target(snapshot, there).ok(),
        parent: None,
        clone_sources: Vec::new(),
        unusable: Vec::new(),
    };
    let mut common = Vec::new();
    for candidate in here.iter().filter(|info| info.id != snapshot.id) {
        let judged = match relation(snapshot, candidate) {
            None => Err(Unusable::Unrelated),
            Some(_) if candidate.access == Access::ReadWrite => Err(Unusable::Writable),
            Some(relation) => on_target(candidate, there).map(|on_target| Common {
                id: candidate.id,
                on_target,
                relation,
            }),
        };
        match judged {
            Ok(found) => {
                let distance = candidate.otransid.0.abs_diff(snapshot.otransid.0);
                let later = candidate.otransid > snapshot.otransid;
                common.push((rank(found.relation, later), distance, found));
            }
            Err(why) => plan.unusable.push((candidate.id, why)),
        }
    }
    common.sort_by_key(|(rank, distance, found)| (*rank, *distance, found.id));
    let mut common = common.into_iter().map(|(_, _, found)| found);
    plan.parent = common.next().map(|mut parent| {
        if parent.relation == Relation::Sibling {
            let later = here
                .iter()
                .any(|info| info.id == parent.id && info.otransid > snapshot.otransid);
            parent.relation = if later {
                Relation::Next
            } else {
                Relation::Previous
            };
        }
        parent
    });
    plan.clone_sources = common.collect();
    plan
}

/// Those before come before those after.
fn rank(relation: Relation, later: bool) -> u8 {
    match (relation, later) {
        (Relation::Sibling | Relation::Previous | Relation::Next, false) => 0,
        (Relation::Ancestor, _) => 1,
        (Relation::Sibling | Relation::Previous | Relation::Next, true) => 2,
        (Relation::Descendant, _) => 3,
    }
}

fn relation(snapshot: &SubvolumeInfo, other: &SubvolumeInfo) -> Option<Relation> {
    let made_from =
        |a: &SubvolumeInfo, b: &SubvolumeInfo| a.parent_uuid.is_some() && a.parent_uuid == b.uuid;
    if made_from(snapshot, other) {
        Some(Relation::Ancestor)
    } else if made_from(other, snapshot) {
        Some(Relation::Descendant)
    } else if snapshot.parent_uuid.is_some() && snapshot.parent_uuid == other.parent_uuid {
        Some(Relation::Sibling)
    } else {
        None
    }
}

/// The subvolume of the target that is the same snapshot as `info`. A receiver
/// looks for `received_uuid`, else `uuid`, of the sender's.
fn on_target(info: &SubvolumeInfo, there: &[SubvolumeInfo]) -> Result<SubvolId, Unusable> {
    let Some(origin) = info.received_uuid.or(info.uuid) else {
        return Err(Unusable::NotOnTarget);
    };
    let is = |uuid: Option<Uuid>| uuid == Some(origin);
    let matching = |info: &&SubvolumeInfo| is(info.received_uuid) || is(info.uuid);
    let mut writable = false;
    // What was received before what has the UUID by itself: that is how the
    // receiver looks.
    let mut found: Vec<_> = there.iter().filter(matching).collect();
    found.sort_by_key(|info| (!is(info.received_uuid), info.id));
    for other in found {
        if other.access == Access::ReadOnly {
            return Ok(other.id);
        }
        writable = true;
    }
    Err(if writable {
        Unusable::WritableOnTarget
    } else {
        Unusable::NotOnTarget
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::types::Generation;
    use proptest::prelude::*;

    fn uuid(n: u8) -> Option<Uuid> {
        Uuid::from_bytes([n; 16])
    }

    fn info(id: u64, own: u8, parent: u8, received: u8, otransid: u64) -> SubvolumeInfo {
        let mut info = SubvolumeInfo::blank(SubvolId::new(id).unwrap());
        info.access = Access::ReadOnly;
        info.uuid = uuid(own);
        info.parent_uuid = uuid(parent);
        info.received_uuid = uuid(received);
        info.otransid = Generation(otransid);
        info
    }

    fn ids(common: &[Common]) -> Vec<u64> {
        common.iter().map(|common| common.id.get()).collect()
    }

    #[test]
    fn the_last_before_is_the_parent() {
        // Snapshots of subvolume 1; the target has those of 20, 30 and 50.
        let here = [
            info(256, 2, 1, 0, 20),
            info(257, 3, 1, 0, 30),
            info(258, 4, 1, 0, 40),
            info(259, 5, 1, 0, 50),
            info(260, 6, 1, 0, 45),
            info(261, 9, 8, 0, 44),
        ];
        let there = [
            info(300, 12, 0, 2, 5),
            info(301, 13, 12, 3, 6),
            info(302, 15, 13, 5, 7),
            info(303, 19, 0, 9, 8),
        ];
        let plan = incremental(&here[4], &here, &there);
        let parent = plan.parent.unwrap();
        assert_eq!((parent.id.get(), parent.on_target.get()), (257, 301));
        assert_eq!(parent.relation, Relation::Previous);
        assert_eq!(ids(&plan.clone_sources), [256, 259]);
        assert_eq!(plan.already, None);
        let why: Vec<_> = plan
            .unusable
            .iter()
            .map(|(id, why)| (id.get(), *why))
            .collect();
        assert_eq!(
            why,
            [(258, Unusable::NotOnTarget), (261, Unusable::Unrelated)]
        );
        // Only a later one is on both sides.
        let plan = incremental(&here[4], &here, &there[2..]);
        assert_eq!(plan.parent.unwrap().relation, Relation::Next);
        assert_eq!(
            incremental(&here[0], &here, &there).already,
            SubvolId::new(300).ok()
        );
    }

    #[test]
    fn received_chains_and_the_way_back() {
        // Both sides received 70 and 71 from a third.
        let here = [info(256, 2, 0, 70, 20), info(257, 3, 2, 71, 30)];
        let there = [info(300, 12, 0, 70, 5)];
        let plan = incremental(&here[1], &here, &there);
        let parent = plan.parent.unwrap();
        assert_eq!(
            (parent.id.get(), parent.relation),
            (256, Relation::Ancestor)
        );
        // What was received from the target goes back to it.
        let restored = [info(256, 2, 0, 12, 20), info(258, 4, 2, 0, 40)];
        let there = [info(300, 12, 11, 0, 5)];
        let plan = incremental(&restored[1], &restored, &there);
        assert_eq!(plan.parent.unwrap().on_target.get(), 300);
    }

    #[test]
    fn what_may_have_changed_is_not_built_on() {
        let mut here = [info(256, 2, 1, 0, 20), info(257, 3, 1, 0, 30)];
        let mut there = [info(300, 12, 0, 2, 5)];
        there[0].access = Access::ReadWrite;
        let plan = incremental(&here[1], &here, &there);
        assert_eq!(plan.parent, None);
        assert_eq!(plan.unusable[0].1, Unusable::WritableOnTarget);
        there[0].access = Access::ReadOnly;
        here[0].access = Access::ReadWrite;
        let plan = incremental(&here[1], &here, &there);
        assert_eq!(plan.unusable[0].1, Unusable::Writable);
    }

    proptest! {
        /// Whatever the lists: what is chosen is read-only on both sides, is
        /// the same snapshot there, and every candidate is accounted for once.
        #[test]
        fn choices_hold(
            rows in proptest::collection::vec((1u8..9, 0u8..5, 0u8..9, 0u64..50, any::<bool>()), 1..12),
            others in proptest::collection::vec((20u8..29, 0u8..9, any::<bool>()), 0..12),
        ) {
            let here: Vec<_> = rows.iter().enumerate().map(|(i, (own, parent, received, at, ro))| {
                let mut info = info(256 + i as u64, *own, *parent, *received, *at);
                info.access = if *ro { Access::ReadOnly } else { Access::ReadWrite };
                info
            }).collect();
            let there: Vec<_> = others.iter().enumerate().map(|(i, (own, received, ro))| {
                let mut info = info(400 + i as u64, *own, 0, *received, 1);
                info.access = if *ro { Access::ReadOnly } else { Access::ReadWrite };
                info
            }).collect();
            let plan = incremental(&here[0], &here, &there);
            for common in plan.parent.iter().chain(&plan.clone_sources) {
                let mine = here.iter().find(|info| info.id == common.id).unwrap();
                let theirs = there.iter().find(|info| info.id == common.on_target).unwrap();
                prop_assert_eq!(mine.access, Access::ReadOnly);
                prop_assert_eq!(theirs.access, Access::ReadOnly);
                let origin = mine.received_uuid.or(mine.uuid);
                prop_assert!(theirs.received_uuid == origin || theirs.uuid == origin);
                prop_assert!(mine.id != here[0].id);
            }
            let chosen = usize::from(plan.parent.is_some()) + plan.clone_sources.len();
            prop_assert_eq!(chosen + plan.unusable.len(), here.len() - 1);
        }
    }
}
