//! States and settings that DRBD counts: each keeps a number it does not know.

use crate::dialect::Dialect;
use std::fmt;
use std::str::FromStr;

/// A word that is not one of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    pub(crate) what: &'static str,
    pub(crate) word: String,
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a {}", self.word, self.what)
    }
}

impl std::error::Error for UnknownWord {}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident, $what:literal { $($(#[$vm:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vm])* $variant,)*
            /// A number this version has no name for, kept as received.
            Other(u32),
        }

        impl $name {
            /// Every value with a name.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.pad($word),)*
                    Self::Other(number) => f.pad(&format!("Other({number})")),
                }
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word => Ok(Self::$variant),)*
                    _ => word
                        .strip_prefix("Other(")
                        .and_then(|rest| rest.strip_suffix(')'))
                        .and_then(|number| number.parse().ok())
                        .map(Self::Other)
                        .ok_or_else(|| UnknownWord { what: $what, word: word.to_owned() }),
                }
            }
        }

        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

macro_rules! numbered {
    ($(#[$meta:meta])* $name:ident, $what:literal { $($(#[$vm:meta])* $variant:ident = $number:literal $word:literal,)* }) => {
        words! { $(#[$meta])* $name, $what { $($(#[$vm])* $variant = $word,)* } }

        impl From<u32> for $name {
            fn from(number: u32) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    other => Self::Other(other),
                }
            }
        }

        impl From<$name> for u32 {
            fn from(value: $name) -> Self {
                match value {
                    $($name::$variant => $number,)*
                    $name::Other(number) => number,
                }
            }
        }
    };
}

numbered! {
    /// Role of a node for a resource (`enum drbd_role`).
    Role, "role" {
        /// Not known, as of a peer that is not connected (`R_UNKNOWN`).
        Unknown = 0 "Unknown",
        /// May write (`R_PRIMARY`).
        Primary = 1 "Primary",
        /// Receives writes (`R_SECONDARY`).
        Secondary = 2 "Secondary",
    }
}

numbered! {
    /// State of a connection (`enum drbd_conn_state`; 9's names, on both kernels).
    ConnectionState, "connection state" {
        /// No network configuration, or given up (`C_STANDALONE`).
        StandAlone = 0 "StandAlone",
        /// On the way to StandAlone (`C_DISCONNECTING`).
        Disconnecting = 1 "Disconnecting",
        /// About to connect (`C_UNCONNECTED`).
        Unconnected = 2 "Unconnected",
        /// The peer did not answer in time (`C_TIMEOUT`).
        Timeout = 3 "Timeout",
        /// Lost (`C_BROKEN_PIPE`).
        BrokenPipe = 4 "BrokenPipe",
        /// Lost (`C_NETWORK_FAILURE`).
        NetworkFailure = 5 "NetworkFailure",
        /// Lost (`C_PROTOCOL_ERROR`).
        ProtocolError = 6 "ProtocolError",
        /// The peer is closing (`C_TEAR_DOWN`).
        TearDown = 7 "TearDown",
        /// Waiting for the peer (`C_CONNECTING`; 8.4's `WFConnection`).
        Connecting = 8 "Connecting",
        /// Connected (`C_CONNECTED`; in 8.4's events everything from
        /// `WFReportParams` on).
        Connected = 9 "Connected",
    }
}

numbered! {
    /// State of the replication of one volume to one peer (`enum drbd_repl_state`).
    ReplicationState, "replication state" {
        /// Not replicating (`L_OFF`).
        Off = 9 "Off",
        /// Replicating, nothing else going on (`L_ESTABLISHED`; 8.4's `Connected`).
        Established = 10 "Established",
        /// Full resync as source, starting (`L_STARTING_SYNC_S`).
        StartingSyncS = 11 "StartingSyncS",
        /// Full resync as target, starting (`L_STARTING_SYNC_T`).
        StartingSyncT = 12 "StartingSyncT",
        /// Exchanging bitmaps as source (`L_WF_BITMAP_S`).
        WFBitMapS = 13 "WFBitMapS",
        /// Exchanging bitmaps as target (`L_WF_BITMAP_T`).
        WFBitMapT = 14 "WFBitMapT",
        /// Waiting for the sync generation (`L_WF_SYNC_UUID`).
        WFSyncUUID = 15 "WFSyncUUID",
        /// Resync, this node is good (`L_SYNC_SOURCE`).
        SyncSource = 16 "SyncSource",
        /// Resync, this node receives (`L_SYNC_TARGET`).
        SyncTarget = 17 "SyncTarget",
        /// Online verify, started here (`L_VERIFY_S`).
        VerifyS = 18 "VerifyS",
        /// Online verify, started there (`L_VERIFY_T`).
        VerifyT = 19 "VerifyT",
        /// Paused resync as source (`L_PAUSED_SYNC_S`).
        PausedSyncS = 20 "PausedSyncS",
        /// Paused resync as target (`L_PAUSED_SYNC_T`).
        PausedSyncT = 21 "PausedSyncT",
        /// Congested: marks blocks instead of sending them (`L_AHEAD`).
        Ahead = 22 "Ahead",
        /// The peer is ahead (`L_BEHIND`).
        Behind = 23 "Behind",
    }
}

words! {
    /// State of a disk (`enum drbd_disk_state`). The two kernels number it differently.
    DiskState, "disk state" {
        /// No disk attached (`D_DISKLESS`).
        Diskless = "Diskless",
        /// Reading the metadata (`D_ATTACHING`).
        Attaching = "Attaching",
        /// Being detached (`D_DETACHING`; not in 8.4).
        Detaching = "Detaching",
        /// Failed, about to be Diskless (`D_FAILED`).
        Failed = "Failed",
        /// Attached on a connected device, not decided yet (`D_NEGOTIATING`).
        Negotiating = "Negotiating",
        /// Holds a mixture of old and new (`D_INCONSISTENT`).
        Inconsistent = "Inconsistent",
        /// Consistent but known to be old (`D_OUTDATED`).
        Outdated = "Outdated",
        /// The peer's, when there is no connection (`D_UNKNOWN`).
        DUnknown = "DUnknown",
        /// Consistent; whether it is current is decided on connect (`D_CONSISTENT`).
        Consistent = "Consistent",
        /// Consistent and current (`D_UP_TO_DATE`).
        UpToDate = "UpToDate",
    }
}

impl DiskState {
    const V84: [Self; 9] = [
        Self::Diskless,
        Self::Attaching,
        Self::Failed,
        Self::Negotiating,
        Self::Inconsistent,
        Self::Outdated,
        Self::DUnknown,
        Self::Consistent,
        Self::UpToDate,
    ];
    const V9: [Self; 10] = [
        Self::Diskless,
        Self::Attaching,
        Self::Detaching,
        Self::Failed,
        Self::Negotiating,
        Self::Inconsistent,
        Self::Outdated,
        Self::DUnknown,
        Self::Consistent,
        Self::UpToDate,
    ];

    fn table(dialect: Dialect) -> &'static [Self] {
        match dialect {
            Dialect::V84 => &Self::V84,
            Dialect::V9 => &Self::V9,
        }
    }

    /// The state behind a number of this kernel.
    #[must_use]
    pub fn from_wire(dialect: Dialect, number: u32) -> Self {
        usize::try_from(number)
            .ok()
            .and_then(|at| Self::table(dialect).get(at).copied())
            .unwrap_or(Self::Other(number))
    }

    /// The number of a state on this kernel; `None` where it has none.
    #[must_use]
    pub fn to_wire(self, dialect: Dialect) -> Option<u32> {
        if let Self::Other(number) = self {
            return Some(number);
        }
        let at = Self::table(dialect)
            .iter()
            .position(|state| *state == self)?;
        u32::try_from(at).ok()
    }
}

numbered! {
    /// How writes are ordered on the disk (`enum write_ordering_e`).
    WriteOrdering, "write ordering" {
        /// Nothing is done.
        None = 0 "none",
        /// Wait for writes before a barrier.
        Drain = 1 "drain",
        /// Wait and flush the cache.
        Flush = 2 "flush",
        /// Barrier requests.
        Barrier = 3 "barrier",
    }
}

numbered! {
    /// `protocol`: when a write is complete.
    Protocol, "protocol" {
        /// When it is on the local disk and in the send buffer.
        A = 1 "A",
        /// When the peer received it.
        B = 2 "B",
        /// When it is on both disks.
        C = 3 "C",
    }
}

numbered! {
    /// `on-io-error`: what to do when the disk fails.
    OnIoError, "on-io-error policy" {
        /// Report to the layer above.
        PassOn = 0 "pass_on",
        /// Call the handler.
        CallLocalIoError = 1 "call-local-io-error",
        /// Drop the disk, go on over the network.
        Detach = 2 "detach",
    }
}

numbered! {
    /// `fencing`: what to do when the peer is lost.
    FencingPolicy, "fencing policy" {
        /// Nothing.
        DontCare = 0 "dont-care",
        /// Call the fence-peer handler.
        ResourceOnly = 1 "resource-only",
        /// Freeze I/O and call the fence-peer handler.
        ResourceAndStonith = 2 "resource-and-stonith",
    }
}

numbered! {
    /// `on-no-data-accessible`, `on-no-quorum`: what happens to I/O.
    OnNoData, "on-no-data policy" {
        /// Fail it.
        IoError = 0 "io-error",
        /// Freeze it.
        SuspendIo = 1 "suspend-io",
    }
}

numbered! {
    /// `on-suspended-primary-outdated` (9).
    OnSuspendedPrimaryOutdated, "on-suspended-primary-outdated policy" {
        /// Drop the connection.
        Disconnect = 0 "disconnect",
        /// Demote, failing I/O.
        ForceSecondary = 1 "force-secondary",
    }
}

numbered! {
    /// `on-congestion`: what to do when the send queue is full.
    OnCongestion, "on-congestion policy" {
        /// Wait.
        Block = 0 "block",
        /// Go Ahead and resync later.
        PullAhead = 1 "pull-ahead",
        /// Drop the connection.
        Disconnect = 2 "disconnect",
    }
}

numbered! {
    /// `read-balancing`: where reads go.
    ReadBalancing, "read-balancing policy" {
        /// The local disk.
        PreferLocal = 0 "prefer-local",
        /// The peer.
        PreferRemote = 1 "prefer-remote",
        /// In turn.
        RoundRobin = 2 "round-robin",
        /// Where fewer are pending.
        LeastPending = 3 "least-pending",
        /// The peer, when the local disk is congested.
        WhenCongestedRemote = 4 "when-congested-remote",
        /// In stripes of this size.
        Striping32K = 5 "32K-striping",
        /// In stripes of this size.
        Striping64K = 6 "64K-striping",
        /// In stripes of this size.
        Striping128K = 7 "128K-striping",
        /// In stripes of this size.
        Striping256K = 8 "256K-striping",
        /// In stripes of this size.
        Striping512K = 9 "512K-striping",
        /// In stripes of this size.
        Striping1M = 10 "1M-striping",
    }
}

numbered! {
    /// `after-sb-*`: what to do about split brain. Which values an option
    /// takes is the kernel's decision.
    AfterSplitBrain, "split brain policy" {
        /// Drop the connection.
        Disconnect = 0 "disconnect",
        /// Discard the data of the node that became Primary last.
        DiscardYoungerPrimary = 1 "discard-younger-primary",
        /// Discard the data of the node that was Primary first.
        DiscardOlderPrimary = 2 "discard-older-primary",
        /// Resync to a node that changed nothing, if there is one.
        DiscardZeroChanges = 3 "discard-zero-changes",
        /// Discard the data of the node that changed less.
        DiscardLeastChanges = 4 "discard-least-changes",
        /// Discard the data here.
        DiscardLocal = 5 "discard-local",
        /// Discard the data there.
        DiscardRemote = 6 "discard-remote",
        /// As the 0pri policy says, if it would make the Secondary the target.
        Consensus = 7 "consensus",
        /// Discard the data of the Secondary.
        DiscardSecondary = 8 "discard-secondary",
        /// Call the handler on the Primary that has to give way.
        CallPriLost = 9 "call-pri-lost-after-sb",
        /// Whatever the 0pri policy says, even under a Primary.
        Violently = 10 "violently-as0p",
    }
}

numbered! {
    /// `rr-conflict`: what to do when roles forbid the resync that is due.
    RrConflict, "rr-conflict policy" {
        /// Drop the connection.
        Disconnect = 0 "disconnect",
        /// Call the handler on the Primary that has to give way.
        CallPriLost = 9 "call-pri-lost",
        /// Resync even under a Primary.
        Violently = 10 "violently",
        /// Connect again (9).
        RetryConnect = 11 "retry-connect",
        /// Discard without asking (9).
        AutoDiscard = 12 "auto-discard",
    }
}

numbered! {
    /// Which of the timeouts of drbd.conf's `startup` section waiting for the
    /// peer should take (`GET_TIMEOUT_TYPE`).
    TimeoutType, "timeout type" {
        /// `wfc-timeout`.
        Default = 0 "default",
        /// `degr-wfc-timeout`: it was degraded when it went down.
        Degraded = 1 "degraded",
        /// `outdated-wfc-timeout`: the peer is known to be outdated.
        PeerOutdated = 2 "peer-outdated",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_round_trip() {
        for state in DiskState::ALL {
            assert_eq!(state.to_string().parse::<DiskState>().unwrap(), *state);
            for dialect in [Dialect::V84, Dialect::V9] {
                if let Some(number) = state.to_wire(dialect) {
                    assert_eq!(DiskState::from_wire(dialect, number), *state);
                }
            }
        }
        assert_eq!(DiskState::from_wire(Dialect::V84, 8), DiskState::UpToDate);
        assert_eq!(DiskState::from_wire(Dialect::V9, 8), DiskState::Consistent);
        assert_eq!(DiskState::from_wire(Dialect::V84, 9), DiskState::Other(9));
        assert_eq!(DiskState::Detaching.to_wire(Dialect::V84), None);
        assert_eq!(DiskState::Other(77).to_wire(Dialect::V9), Some(77));
        for number in 0..100 {
            assert_eq!(u32::from(ReplicationState::from(number)), number);
            assert_eq!(u32::from(Role::from(number)), number);
            let state = ConnectionState::from(number);
            assert_eq!(state.to_string().parse::<ConnectionState>().unwrap(), state);
        }
        assert!("Upsidedown".parse::<DiskState>().is_err());
    }
}
