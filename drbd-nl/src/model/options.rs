//! Settings of disks, connections, resources and peer devices.
//!
//! Each struct has one `Option` field per setting: `None` leaves it alone
//! in a request, and means "not reported" in an answer. What a kernel sends
//! that this version has no name for is kept in `unknown` and sent back.
//!
//! The names, units and defaults are those of drbd.conf; see [`OptionInfo`].

use super::enums::{
    AfterSplitBrain, FencingPolicy, OnCongestion, OnIoError, OnNoData, OnSuspendedPrimaryOutdated,
    Protocol, ReadBalancing, RrConflict, UnknownWord,
};
use super::ids::{Minor, Secret, Text};
use crate::dialect::Dialect;
use crate::schema::{self, MANDATORY, tla};
use crate::wire::{Attr, Attrs, Endian, Nest, WireError};
use std::fmt;

/// What is known about one setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OptionInfo {
    /// Its name in drbd.conf.
    pub name: &'static str,
    /// What a bare number counts.
    pub unit: Unit,
    /// Attribute number on DRBD 8.4, if it exists there.
    pub v84: Option<u16>,
    /// Attribute number on DRBD 9, if it exists there.
    pub v9: Option<u16>,
    /// Fixed once the object exists.
    pub invariant: bool,
}

impl OptionInfo {
    /// The attribute number on this kernel, if it exists there.
    #[must_use]
    pub fn number(&self, dialect: Dialect) -> Option<u16> {
        match dialect {
            Dialect::V84 => self.v84,
            Dialect::V9 => self.v9,
        }
    }
}

/// What the number of a setting counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unit {
    /// Nothing: a count, a word or a string.
    None,
    /// Bytes.
    Bytes,
    /// 512-byte sectors.
    Sectors,
    /// KiB per second.
    KibPerSecond,
    /// Seconds.
    Seconds,
    /// Tenths of a second.
    Tenths,
    /// Milliseconds.
    Millis,
}

impl Unit {
    /// log2 of the bytes that a bare number counts.
    fn shift(self) -> u32 {
        match self {
            Self::Sectors => 9,
            Self::KibPerSecond => 10,
            _ => 0,
        }
    }
}

/// A setting that could not be set by name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionError {
    /// There is no setting of this name here.
    UnknownName(String),
    /// The value is not one the setting takes.
    InvalidValue {
        /// Name of the setting.
        name: &'static str,
        /// The value given (never shown for a secret).
        value: String,
        /// What was expected.
        expected: String,
    },
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownName(name) => write!(f, "unknown option \"{name}\""),
            Self::InvalidValue {
                name,
                value,
                expected,
            } => {
                write!(f, "{name}: \"{value}\" is not {expected}")
            }
        }
    }
}

impl std::error::Error for OptionError {}

/// A setting that the running kernel does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// Name of the setting.
    pub option: &'static str,
    /// The kernel's dialect.
    pub dialect: Dialect,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let other = match self.dialect {
            Dialect::V84 => "it needs DRBD 9",
            Dialect::V9 => "it exists in DRBD 8.4 only, here",
        };
        write!(
            f,
            "option {} is not known to {}: {other}",
            self.option, self.dialect
        )
    }
}

impl std::error::Error for Unsupported {}

/// An attribute this version has no name for: number and payload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct UnknownAttr {
    /// Its number in the nest.
    pub number: u16,
    /// Its payload.
    pub payload: Box<[u8]>,
}

/// How a value travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    U8,
    U32,
    I32,
    U64,
    Str,
}

enum Raw<'a> {
    Number(i64),
    Bytes(&'a [u8]),
}

/// A type that a setting can have.
trait Value: Sized {
    fn raw(&self) -> Raw<'_>;
    fn from_number(number: i64) -> Option<Self> {
        let _ = number;
        None
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let _ = bytes;
        None
    }
    /// The value in drbd.conf's words, or what was expected instead.
    fn parse(text: &str, unit: Unit) -> Result<Self, String>;
    fn show(&self) -> String;
}

impl Value for bool {
    fn raw(&self) -> Raw<'_> {
        Raw::Number(i64::from(*self))
    }
    fn from_number(number: i64) -> Option<Self> {
        Some(number != 0)
    }
    fn parse(text: &str, _: Unit) -> Result<Self, String> {
        match text {
            // A boolean may stand without its value.
            "yes" | "" => Ok(true),
            "no" => Ok(false),
            _ => Err("\"yes\" or \"no\"".into()),
        }
    }
    fn show(&self) -> String {
        if *self { "yes" } else { "no" }.into()
    }
}

impl Value for u32 {
    fn raw(&self) -> Raw<'_> {
        Raw::Number(i64::from(*self))
    }
    fn from_number(number: i64) -> Option<Self> {
        Self::try_from(number).ok()
    }
    fn parse(text: &str, unit: Unit) -> Result<Self, String> {
        u64::parse(text, unit)?
            .try_into()
            .map_err(|_| format!("a number up to {}", u32::MAX))
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u64 {
    fn raw(&self) -> Raw<'_> {
        Raw::Number(i64::try_from(*self).unwrap_or(i64::MAX))
    }
    fn from_number(number: i64) -> Option<Self> {
        Self::try_from(number).ok()
    }
    fn parse(text: &str, unit: Unit) -> Result<Self, String> {
        let expected = || "a number, optionally with k, M, G or s".to_owned();
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let number: u64 = digits.parse().map_err(|_| expected())?;
        let shift = match &text[digits.len()..] {
            "" => return Ok(number),
            "s" => 9,
            "k" | "K" => 10,
            "m" | "M" => 20,
            "g" | "G" => 30,
            _ => return Err(expected()),
        };
        number
            .checked_mul(1 << shift)
            .map(|bytes| bytes >> unit.shift())
            .ok_or_else(|| "a smaller number".into())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Text {
    fn raw(&self) -> Raw<'_> {
        Raw::Bytes(self.as_bytes())
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self::from_bytes(bytes))
    }
    fn parse(text: &str, _: Unit) -> Result<Self, String> {
        if text.contains('\0') {
            Err("a string without NUL".into())
        } else {
            Ok(text.into())
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Secret {
    fn raw(&self) -> Raw<'_> {
        Raw::Bytes(self.reveal().as_bytes())
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self::new(Text::from_bytes(bytes)))
    }
    fn parse(text: &str, unit: Unit) -> Result<Self, String> {
        Text::parse(text, unit).map(Self::new)
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! enum_value {
    ($($name:ident)*) => {$(
        impl Value for $name {
            fn raw(&self) -> Raw<'_> {
                Raw::Number(i64::from(u32::from(*self)))
            }
            fn from_number(number: i64) -> Option<Self> {
                u32::try_from(number).ok().map(Self::from)
            }
            fn parse(text: &str, _: Unit) -> Result<Self, String> {
                text.parse().map_err(|_: UnknownWord| {
                    let words: Vec<_> = Self::ALL.iter().map(ToString::to_string).collect();
                    format!("one of {}", words.join(", "))
                })
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

enum_value! {
    AfterSplitBrain FencingPolicy OnCongestion OnIoError OnNoData OnSuspendedPrimaryOutdated
    Protocol ReadBalancing RrConflict
}

/// `resync-after`: which device has to be in sync before this one may resync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum ResyncAfter {
    /// None.
    Any,
    /// This minor.
    Minor(Minor),
}

impl Value for ResyncAfter {
    fn raw(&self) -> Raw<'_> {
        Raw::Number(match self {
            Self::Any => -1,
            Self::Minor(minor) => i64::from(minor.0),
        })
    }
    fn from_number(number: i64) -> Option<Self> {
        Some(u32::try_from(number).map_or(Self::Any, |minor| Self::Minor(Minor(minor))))
    }
    fn parse(text: &str, _: Unit) -> Result<Self, String> {
        match text {
            "-1" | "" => Ok(Self::Any),
            _ => text
                .parse()
                .map(|minor| Self::Minor(Minor(minor)))
                .map_err(|_| "a minor number or -1".into()),
        }
    }
    fn show(&self) -> String {
        match self {
            Self::Any => "-1".into(),
            Self::Minor(minor) => minor.to_string(),
        }
    }
}

/// `quorum`, `quorum-minimum-redundancy` (9): how many nodes are enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Quorum {
    /// No quorum needed.
    Off,
    /// More than half.
    Majority,
    /// All of them.
    All,
    /// This many; also numbers this version has no name for.
    Nodes(i32),
}

impl Value for Quorum {
    fn raw(&self) -> Raw<'_> {
        Raw::Number(match self {
            Self::Off => 0,
            Self::Majority => 1024,
            Self::All => 1025,
            Self::Nodes(nodes) => i64::from(*nodes),
        })
    }
    fn from_number(number: i64) -> Option<Self> {
        Some(match number {
            0 => Self::Off,
            1024 => Self::Majority,
            1025 => Self::All,
            other => Self::Nodes(i32::try_from(other).ok()?),
        })
    }
    fn parse(text: &str, _: Unit) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "majority" => Ok(Self::Majority),
            "all" => Ok(Self::All),
            _ => text
                .parse()
                .map(Self::Nodes)
                .map_err(|_| "\"off\", \"majority\", \"all\" or a number".into()),
        }
    }
    fn show(&self) -> String {
        match self {
            Self::Off => "off".into(),
            Self::Majority => "majority".into(),
            Self::All => "all".into(),
            Self::Nodes(nodes) => nodes.to_string(),
        }
    }
}

/// Serial number of a key in the kernel's keyring (9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct KeySerial(pub i32);

impl Value for KeySerial {
    fn raw(&self) -> Raw<'_> {
        Raw::Number(i64::from(self.0))
    }
    fn from_number(number: i64) -> Option<Self> {
        i32::try_from(number).ok().map(Self)
    }
    fn parse(text: &str, _: Unit) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|_| "a key serial number".into())
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

fn put<E: Endian>(nest: &mut Nest<'_, E>, number: u16, wire: Wire, value: &impl Value) {
    let kind = number | MANDATORY;
    match (value.raw(), wire) {
        (Raw::Bytes(bytes), _) => nest.string(kind, bytes),
        (Raw::Number(n), Wire::U8) => nest.u8(kind, u8::from(n != 0)),
        (Raw::Number(n), Wire::I32) => nest.i32(kind, i32::try_from(n).unwrap_or(i32::MAX)),
        (Raw::Number(n), Wire::U64) => nest.u64(kind, u64::try_from(n).unwrap_or(0)),
        (Raw::Number(n), Wire::U32 | Wire::Str) => {
            nest.u32(kind, u32::try_from(n).unwrap_or(u32::MAX))
        }
    };
}

fn get<E: Endian, V: Value>(attr: &Attr<'_, E>, wire: Wire) -> Result<Option<V>, WireError> {
    Ok(match wire {
        Wire::Str => V::from_bytes(attr.string()),
        Wire::U8 => V::from_number(i64::from(attr.u8()?)),
        Wire::U32 => V::from_number(i64::from(attr.u32()?)),
        Wire::I32 => V::from_number(i64::from(attr.i32()?)),
        Wire::U64 => i64::try_from(attr.u64()?).ok().and_then(V::from_number),
    })
}

macro_rules! nr {
    (_) => {
        None
    };
    ($number:literal) => {
        Some($number)
    };
}

macro_rules! invariant {
    () => {
        false
    };
    (I) => {
        true
    };
}

macro_rules! options {
    (
        $(#[$meta:meta])*
        $name:ident, $tla:path, skip84: $skip84:expr, skip9: $skip9:expr;
        $( $(#[$fm:meta])* $field:ident: $ty:ty, $word:literal, $wire:ident, $unit:ident,
           [$v84:tt $v9:tt] $($inv:ident)?; )*
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        #[non_exhaustive]
        pub struct $name {
            $(
                $(#[$fm])*
                #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
                pub $field: Option<$ty>,
            )*
            /// Attributes this version has no name for, as received.
            #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
            pub unknown: Vec<UnknownAttr>,
        }

        impl $name {
            /// What is known about each setting, in the order of the fields.
            pub const INFO: &'static [OptionInfo] = &[$(
                OptionInfo {
                    name: $word,
                    unit: Unit::$unit,
                    v84: nr!($v84),
                    v9: nr!($v9),
                    invariant: invariant!($($inv)?),
                },
            )*];

            /// The top level attribute that carries these settings.
            pub(crate) const TLA: u16 = $tla;

            /// Leaves everything alone.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            $(
                $(#[$fm])*
                #[must_use]
                pub fn $field(mut self, value: impl Into<$ty>) -> Self {
                    self.$field = Some(value.into());
                    self
                }
            )*

            /// Whether nothing is set.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                *self == Self::default()
            }

            /// Sets a setting by its name in drbd.conf, in drbd.conf's words
            /// (`k`, `M`, `G` and `s` convert to the setting's unit).
            ///
            /// # Errors
            /// When there is no such setting, or it does not take the value.
            pub fn set(&mut self, name: &str, value: &str) -> Result<(), OptionError> {
                match name {
                    $($word => {
                        let parsed = <$ty as Value>::parse(value, Unit::$unit).map_err(|expected| {
                            OptionError::InvalidValue { name: $word, value: value.to_owned(), expected }
                        })?;
                        self.$field = Some(parsed);
                        Ok(())
                    })*
                    _ => Err(OptionError::UnknownName(name.to_owned())),
                }
            }

            /// A setting by its name in drbd.conf, in drbd.conf's words, its
            /// number in the setting's unit; a secret is not shown.
            #[must_use]
            pub fn get(&self, name: &str) -> Option<String> {
                match name {
                    $($word => self.$field.as_ref().map(Value::show),)*
                    _ => None,
                }
            }

            /// The first setting that this kernel does not have.
            pub(crate) fn check(&self, dialect: Dialect) -> Result<(), Unsupported> {
                let set = [$(self.$field.is_some(),)*];
                for (info, set) in Self::INFO.iter().zip(set) {
                    if set && info.number(dialect).is_none() {
                        return Err(Unsupported { option: info.name, dialect });
                    }
                }
                Ok(())
            }

            /// Writes what is set into a nest.
            pub(crate) fn encode<E: Endian>(&self, dialect: Dialect, nest: &mut Nest<'_, E>) {
                let mut infos = Self::INFO.iter();
                $(
                    if let Some(info) = infos.next()
                        && let (Some(value), Some(number)) = (&self.$field, info.number(dialect))
                    {
                        put(nest, number, Wire::$wire, value);
                    }
                )*
                for attr in &self.unknown {
                    nest.bytes(attr.number | MANDATORY, &attr.payload);
                }
            }

            /// Reads a nest.
            pub(crate) fn decode<E: Endian>(
                dialect: Dialect,
                nest: Attrs<'_, E>,
            ) -> Result<Self, WireError> {
                let mut options = Self::default();
                let skip: &[u16] = match dialect {
                    Dialect::V84 => &$skip84,
                    Dialect::V9 => &$skip9,
                };
                for attr in nest {
                    let attr = attr?;
                    let mut known = skip.contains(&attr.number);
                    let mut infos = Self::INFO.iter();
                    $(
                        if let Some(info) = infos.next()
                            && info.number(dialect) == Some(attr.number)
                        {
                            if let Some(value) = get::<E, $ty>(&attr, Wire::$wire)? {
                                options.$field = Some(value);
                                known = true;
                            }
                        }
                    )*
                    if !known {
                        options.unknown.push(UnknownAttr {
                            number: attr.number,
                            payload: attr.payload.into(),
                        });
                    }
                }
                Ok(options)
            }
        }
    };
}

options! {
    /// Settings of a disk (`disk_conf`, the `disk` section).
    ///
    /// In 8.4 the resync controller and `fencing` live here; in 9 they are
    /// in [`PeerDeviceOptions`] and [`NetOptions`].
    DiskOptions, tla::DISK_CONF,
    skip84: [schema::disk_conf::BACKING_DEV, schema::disk_conf::META_DEV, schema::disk_conf::META_DEV_IDX],
    skip9: [schema::disk_conf::BACKING_DEV, schema::disk_conf::META_DEV, schema::disk_conf::META_DEV_IDX];
    /// Use only this much of the disk, in sectors; 0 for all of it. Fixed at attach.
    size: u64, "size", U64, Sectors, [4 4] I;
    /// Limits segments of a request. Fixed at attach; 8.4 only.
    max_bio_bvecs: u32, "max-bio-bvecs", U32, None, [5 _] I;
    /// What to do when the disk fails.
    on_io_error: OnIoError, "on-io-error", U32, None, [6 6];
    /// What to do when the peer is lost. 8.4 only; in 9 a setting of the connection.
    fencing: FencingPolicy, "fencing", U32, None, [7 _];
    /// Resync rate in KiB/s when the controller is off. 8.4 only, here.
    resync_rate: u32, "resync-rate", U32, KibPerSecond, [8 _];
    /// Which device has to be in sync before.
    resync_after: ResyncAfter, "resync-after", I32, None, [9 9];
    /// Size of the activity log, in extents of 4 MiB.
    al_extents: u32, "al-extents", U32, None, [10 10];
    /// Resync controller: planning horizon in 1/10 s; 0 turns it off. 8.4 only, here.
    c_plan_ahead: u32, "c-plan-ahead", U32, Tenths, [11 _];
    /// Resync controller: delay to aim for, in 1/10 s. 8.4 only, here.
    c_delay_target: u32, "c-delay-target", U32, Tenths, [12 _];
    /// Resync controller: data in flight to aim for, in sectors. 8.4 only, here.
    c_fill_target: u32, "c-fill-target", U32, Sectors, [13 _];
    /// Resync controller: most KiB/s. 8.4 only, here.
    c_max_rate: u32, "c-max-rate", U32, KibPerSecond, [14 _];
    /// Resync controller: least KiB/s under application I/O. 8.4 only, here.
    c_min_rate: u32, "c-min-rate", U32, KibPerSecond, [15 _];
    /// Order writes by barriers.
    disk_barrier: bool, "disk-barrier", U8, None, [16 16];
    /// Order writes by cache flushes.
    disk_flushes: bool, "disk-flushes", U8, None, [17 17];
    /// Order writes by waiting.
    disk_drain: bool, "disk-drain", U8, None, [18 18];
    /// Flush the cache after metadata writes.
    md_flushes: bool, "md-flushes", U8, None, [19 19];
    /// Give up on the disk after this long, in 1/10 s; 0 never.
    disk_timeout: u32, "disk-timeout", U32, Tenths, [20 20];
    /// Where reads go.
    read_balancing: ReadBalancing, "read-balancing", U32, None, [21 21];
    /// Requests in flight before the disk's queue is kicked. 9 only, here.
    unplug_watermark: u32, "unplug-watermark", U32, None, [_ 22];
    /// Keep the activity log. Off means a full resync after a crash.
    al_updates: bool, "al-updates", U8, None, [23 23];
    /// Assume that aligned discards give zeroes.
    discard_zeroes_if_aligned: bool, "discard-zeroes-if-aligned", U8, None, [24 24];
    /// Resync zeroed areas by discards of this many bytes.
    rs_discard_granularity: u32, "rs-discard-granularity", U32, Bytes, [25 25];
    /// Do not use WRITE SAME.
    disable_write_same: bool, "disable-write-same", U8, None, [26 26];
    /// Keep a bitmap (9.3).
    bitmap: bool, "bitmap", U8, None, [_ 27];
}

options! {
    /// Settings of a connection (`net_conf`, the `net` section).
    ///
    /// `discard-my-data` and `tentative` are not settings but one-shot
    /// wishes at connect; see [`Operation`](crate::Operation).
    NetOptions, tla::NET_CONF,
    skip84: [schema::net_conf::DISCARD_MY_DATA, schema::net_conf::TENTATIVE],
    skip9: [schema::net_conf::NAME];
    /// Secret for peer authentication. Hidden from readers without CAP_SYS_ADMIN.
    shared_secret: Secret, "shared-secret", Str, None, [1 1];
    /// Digest for peer authentication, such as `sha1`; its module must be loadable.
    cram_hmac_alg: Text, "cram-hmac-alg", Str, None, [2 2];
    /// Digest over data in transit.
    data_integrity_alg: Text, "data-integrity-alg", Str, None, [3 3];
    /// Digest of the online verify.
    verify_alg: Text, "verify-alg", Str, None, [4 4];
    /// Digest of a checksum based resync.
    csums_alg: Text, "csums-alg", Str, None, [5 5];
    /// When a write is complete.
    protocol: Protocol, "protocol", U32, None, [6 6];
    /// Seconds between attempts to connect.
    connect_int: u32, "connect-int", U32, Seconds, [7 7];
    /// Peer is dead after this long without an answer, in 1/10 s.
    timeout: u32, "timeout", U32, Tenths, [8 8];
    /// Seconds without traffic before a keep-alive.
    ping_int: u32, "ping-int", U32, Seconds, [9 9];
    /// Time for the answer to a keep-alive, in 1/10 s.
    ping_timeout: u32, "ping-timeout", U32, Tenths, [10 10];
    /// Send buffer in bytes; 0 automatic.
    sndbuf_size: u32, "sndbuf-size", U32, Bytes, [11 11];
    /// Receive buffer in bytes; 0 automatic.
    rcvbuf_size: u32, "rcvbuf-size", U32, Bytes, [12 12];
    /// Give up on the peer after this many timeouts of one write; 0 never.
    ko_count: u32, "ko-count", U32, None, [13 13];
    /// Pages for receiving and resync.
    max_buffers: u32, "max-buffers", U32, None, [14 36];
    /// Write requests between two barriers.
    max_epoch_size: u32, "max-epoch-size", U32, None, [15 15];
    /// Requests in flight before the disk's queue is kicked. 8.4 only, here.
    unplug_watermark: u32, "unplug-watermark", U32, None, [16 _];
    /// Split brain, no Primary.
    after_sb_0pri: AfterSplitBrain, "after-sb-0pri", U32, None, [17 17];
    /// Split brain, one Primary.
    after_sb_1pri: AfterSplitBrain, "after-sb-1pri", U32, None, [18 18];
    /// Split brain, two Primaries.
    after_sb_2pri: AfterSplitBrain, "after-sb-2pri", U32, None, [19 19];
    /// Roles forbid the resync that is due.
    rr_conflict: RrConflict, "rr-conflict", U32, None, [20 20];
    /// What to do when the send queue is full.
    on_congestion: OnCongestion, "on-congestion", U32, None, [21 21];
    /// Queue length that is congestion, in sectors; 0 off.
    congestion_fill: u32, "congestion-fill", U32, Sectors, [22 22];
    /// Active extents that are congestion.
    congestion_extents: u32, "congestion-extents", U32, None, [23 23];
    /// Both nodes may be Primary.
    allow_two_primaries: bool, "allow-two-primaries", U8, None, [24 24];
    /// Cork the sockets.
    tcp_cork: bool, "tcp-cork", U8, None, [26 26];
    /// Apply the after-sb policies although the generations are unrelated.
    always_asbp: bool, "always-asbp", U8, None, [27 27];
    /// Compress bitmaps on the wire.
    use_rle: bool, "use-rle", U8, None, [29 29];
    /// What to do when the peer is lost. 9 only; in 8.4 a setting of the disk.
    fencing: FencingPolicy, "fencing", U32, None, [_ 30];
    /// Checksum based resync only after a crash.
    csums_after_crash_only: bool, "csums-after-crash-only", U8, None, [33 33];
    /// Time for a connected socket to be confirmed, in 1/10 s.
    socket_check_timeout: u32, "socket-check-timeout", U32, Tenths, [34 34];
    /// Transport module (9). Fixed once the peer exists.
    transport: Text, "transport", Str, None, [_ 35] I;
    /// Diskless reads may go to this peer (9).
    allow_remote_read: bool, "allow-remote-read", U8, None, [_ 37];
    /// Encrypt (9.2.6).
    tls: bool, "tls", U8, None, [_ 38];
    /// Key for TLS (9.2.6).
    tls_privkey: KeySerial, "tls-privkey", I32, None, [_ 39];
    /// Certificate for TLS (9.2.6).
    tls_certificate: KeySerial, "tls-certificate", I32, None, [_ 40];
    /// Keyring for TLS (9.2.6).
    tls_keyring: KeySerial, "tls-keyring", I32, None, [_ 41];
    /// Use all paths at once (9.2.6). Fixed once the peer exists.
    load_balance_paths: bool, "load-balance-paths", U8, None, [_ 42] I;
    /// RDMA control receive buffer in bytes (9.2.6).
    rdma_ctrl_rcvbuf_size: u32, "rdma-ctrl-rcvbuf-size", U32, Bytes, [_ 43];
    /// RDMA control send buffer in bytes (9.2.6).
    rdma_ctrl_sndbuf_size: u32, "rdma-ctrl-sndbuf-size", U32, Bytes, [_ 44];
}

options! {
    /// Settings of a resource (`res_opts`, the `options` section).
    ResourceOptions, tla::RESOURCE_OPTS,
    skip84: [],
    skip9: [schema::res_opts::NODE_ID];
    /// CPUs for the threads of the resource, as a hexadecimal mask.
    cpu_mask: Text, "cpu-mask", Str, None, [1 1];
    /// What happens to I/O when there is no data to be had.
    on_no_data_accessible: OnNoData, "on-no-data-accessible", U32, None, [2 2];
    /// Opening for writing promotes (9).
    auto_promote: bool, "auto-promote", U8, None, [_ 3];
    /// Peer-ack every so many sectors (9).
    peer_ack_window: u32, "peer-ack-window", U32, Sectors, [_ 5];
    /// Time for a cluster wide state change, in 1/10 s (9).
    twopc_timeout: u32, "twopc-timeout", U32, Tenths, [_ 6];
    /// Time before it is tried again, in 1/10 s (9).
    twopc_retry_timeout: u32, "twopc-retry-timeout", U32, Tenths, [_ 7];
    /// Peer-ack after this long without writes, in ms (9).
    peer_ack_delay: u32, "peer-ack-delay", U32, Millis, [_ 8];
    /// Time an opener waits for promotion, in 1/10 s (9).
    auto_promote_timeout: u32, "auto-promote-timeout", U32, Tenths, [_ 9];
    /// Requests in flight (9).
    max_io_depth: u32, "max-io-depth", U32, None, [_ 10];
    /// Nodes needed to write (9).
    quorum: Quorum, "quorum", I32, None, [_ 11];
    /// What happens to I/O without quorum (9).
    on_no_quorum: OnNoData, "on-no-quorum", U32, None, [_ 12];
    /// UpToDate disks needed to write (9).
    quorum_minimum_redundancy: Quorum, "quorum-minimum-redundancy", I32, None, [_ 13];
    /// A suspended Primary meets newer data (9.1.7).
    on_suspended_primary_outdated: OnSuspendedPrimaryOutdated,
        "on-suspended-primary-outdated", U32, None, [_ 14];
    /// Speak to an 8.4 peer (9.2.15).
    drbd8_compat_mode: bool, "drbd8-compat-mode", U8, None, [_ 15];
    /// Offer the 8.4 interface (9.3).
    drbd8_api_compatibility: bool, "drbd8-api-compatibility", U8, None, [_ 16];
}

options! {
    /// Settings of one volume towards one peer (`peer_device_conf`; 9 only).
    PeerDeviceOptions, tla::PEER_DEVICE_OPTS,
    skip84: [],
    skip9: [];
    /// Resync rate in KiB/s when the controller is off.
    resync_rate: u32, "resync-rate", U32, KibPerSecond, [_ 1];
    /// Resync controller: planning horizon in 1/10 s; 0 turns it off.
    c_plan_ahead: u32, "c-plan-ahead", U32, Tenths, [_ 2];
    /// Resync controller: delay to aim for, in 1/10 s.
    c_delay_target: u32, "c-delay-target", U32, Tenths, [_ 3];
    /// Resync controller: data in flight to aim for, in sectors.
    c_fill_target: u32, "c-fill-target", U32, Sectors, [_ 4];
    /// Resync controller: most KiB/s.
    c_max_rate: u32, "c-max-rate", U32, KibPerSecond, [_ 5];
    /// Resync controller: least KiB/s under application I/O.
    c_min_rate: u32, "c-min-rate", U32, KibPerSecond, [_ 6];
    /// Keep a bitmap for this peer.
    bitmap: bool, "bitmap", U8, None, [_ 7];
    /// Resync although replication is not possible (9.2.14).
    resync_without_replication: bool, "resync-without-replication", U8, None, [_ 8];
    /// The peer counts as a tiebreaker (9.3.1).
    peer_tiebreaker: bool, "peer-tiebreaker", U8, None, [_ 9];
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::wire::{Big, Little, MessageBuilder};

    fn bytes<E: Endian>(dialect: Dialect, options: &NetOptions) -> Vec<u8> {
        let mut builder = MessageBuilder::<E>::genl(28, 1, 10, 1);
        options.encode(dialect, &mut builder.attrs());
        builder.finish(1, 1).unwrap()[20..].to_vec()
    }

    #[test]
    fn unknown_attributes_and_values_survive() {
        let mut options = NetOptions::new()
            .shared_secret(Secret::new("x"))
            .protocol(Protocol::Other(9))
            .ko_count(3u32)
            .allow_two_primaries(true);
        options.unknown.push(UnknownAttr {
            number: 99,
            payload: [1, 2, 3].into(),
        });
        let little = bytes::<Little>(Dialect::V84, &options);
        let back = NetOptions::decode(Dialect::V84, Attrs::<Little>::new(&little)).unwrap();
        assert_eq!(back, options);
        assert_eq!(bytes::<Little>(Dialect::V84, &back), little);
        let big = bytes::<Big>(Dialect::V9, &options);
        assert_eq!(
            NetOptions::decode(Dialect::V9, Attrs::<Big>::new(&big)).unwrap(),
            options
        );
    }

    #[test]
    fn the_kernel_decides_the_number() {
        let options = NetOptions::new().max_buffers(8000u32);
        assert_eq!(bytes::<Little>(Dialect::V84, &options)[2], 14);
        assert_eq!(bytes::<Little>(Dialect::V9, &options)[2], 36);
        assert!(options.check(Dialect::V84).is_ok());
        let fenced = NetOptions::new().fencing(FencingPolicy::ResourceOnly);
        assert!(fenced.check(Dialect::V9).is_ok());
        let error = fenced.check(Dialect::V84).unwrap_err();
        assert_eq!(error.option, "fencing");
    }

    #[test]
    fn settings_by_name() {
        let mut disk = DiskOptions::new();
        for (name, value, shown) in [
            ("c-max-rate", "40M", "40960"),
            ("resync-rate", "2M", "2048"),
            ("c-fill-target", "1M", "2048"),
            ("size", "40960s", "40960"),
            ("size", "20M", "40960"),
            ("al-extents", "6007", "6007"),
            ("rs-discard-granularity", "8k", "8192"),
            ("disk-flushes", "no", "no"),
            ("md-flushes", "", "yes"),
            ("on-io-error", "detach", "detach"),
            ("resync-after", "-1", "-1"),
            ("read-balancing", "1M-striping", "1M-striping"),
        ] {
            disk.set(name, value).unwrap();
            assert_eq!(disk.get(name).unwrap(), shown, "{name} {value}");
        }
        assert!(matches!(
            disk.set("nosuch", "1"),
            Err(OptionError::UnknownName(_))
        ));
        let error = disk.set("on-io-error", "panic").unwrap_err().to_string();
        assert!(
            error.contains("pass_on, call-local-io-error, detach"),
            "{error}"
        );
        for bad in ["", "x", "1T", "99999999999999999999G"] {
            assert!(disk.set("al-extents", bad).is_err(), "{bad}");
        }
        let mut net = NetOptions::new();
        net.set("shared-secret", "hunter2").unwrap();
        assert!(!format!("{net:?} {:?}", net.get("shared-secret")).contains("hunter2"));
        let mut resource = ResourceOptions::new();
        resource.set("quorum", "majority").unwrap();
        assert_eq!(resource.quorum, Some(Quorum::Majority));
    }
}
