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
use crate::dialect::{Dialect, Release};
use crate::schema::{self, MANDATORY, tla};
use crate::wire::{Attr, Attrs, Endian, Nest, WireError};
use std::fmt;
use std::sync::OnceLock;

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
    /// What DRBD starts from, in drbd.conf's words.
    pub default: &'static str,
    /// Least and most of a number, in its unit; of a string, its length in
    /// bytes. The widest of all versions known.
    pub range: Option<(i64, i64)>,
    /// The releases of DRBD 9 that brought it, one a branch; empty for those
    /// that every DRBD 9 has.
    pub since: &'static [Release],
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

    /// Whether a kernel has it; an unknown release of a dialect that has it
    /// is given the benefit of the doubt (DRBD then refuses itself).
    #[must_use]
    pub fn is_in(&self, dialect: Dialect, release: Option<Release>) -> bool {
        self.number(dialect).is_some()
            && (dialect == Dialect::V84 || release.is_none_or(|release| release.has(self.since)))
    }
}

/// What a request does with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Setting {
    /// It stays as it is.
    Leave,
    /// It gets this value, in drbd.conf's words (a secret is not shown).
    Set(String),
    /// It gets DRBD's default.
    Default,
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
    /// KiB.
    Kib,
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
    /// What drbdsetup puts behind a number.
    #[cfg(feature = "serde")]
    fn suffix(self) -> &'static str {
        match self {
            Self::Sectors => "s",
            Self::Kib | Self::KibPerSecond => "k",
            _ => "",
        }
    }

    /// log2 of the bytes that a bare number counts.
    fn shift(self) -> u32 {
        match self {
            Self::Sectors => 9,
            Self::Kib | Self::KibPerSecond => 10,
            _ => 0,
        }
    }
}

/// A value in drbdsetup's JSON.
#[cfg(feature = "serde")]
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    /// A flag.
    Flag(bool),
    /// Anything else, a number with its unit.
    Word(String),
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

/// A setting that cannot be sent to the running kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejected {
    /// The kernel does not have it.
    Unsupported {
        /// Name of the setting.
        option: &'static str,
        /// The kernel's dialect.
        dialect: Dialect,
        /// The kernel's release, if it is known.
        release: Option<Release>,
        /// The least releases that have it, one a branch; empty where only
        /// the other dialect has it.
        needs: &'static [Release],
    },
    /// The number, or the length of the string, is out of its range.
    OutOfRange {
        /// Name of the setting.
        option: &'static str,
        /// What was given.
        given: i64,
        /// Least.
        least: i64,
        /// Most.
        most: i64,
    },
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported {
                option,
                dialect,
                release,
                needs,
            } => {
                write!(f, "option {option} is not known to ")?;
                match release {
                    Some(release) => write!(f, "DRBD {release}")?,
                    None => write!(f, "{dialect}")?,
                }
                match (dialect, needs) {
                    (Dialect::V9, []) => f.write_str(": it exists in DRBD 8.4 only, here"),
                    (_, []) => f.write_str(": it needs DRBD 9"),
                    (_, needs) => write!(f, ": it needs DRBD {}", Release::list(needs)),
                }
            }
            Self::OutOfRange {
                option,
                given,
                least,
                most,
            } => {
                write!(f, "option {option}: {given} is not in {least} to {most}")
            }
        }
    }
}

impl std::error::Error for Rejected {}

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
    /// The value in drbdsetup's JSON.
    #[cfg(feature = "serde")]
    fn shown(&self, unit: Unit, secrets: bool) -> Shown {
        let _ = secrets;
        Shown::Word(self.show() + unit.suffix())
    }
    /// What its range limits: the number, the length of a string; `None` for
    /// a word of a set.
    fn measure(&self) -> Option<i64> {
        match self.raw() {
            Raw::Number(number) => Some(number),
            Raw::Bytes(bytes) => i64::try_from(bytes.len()).ok(),
        }
    }
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
    #[cfg(feature = "serde")]
    fn shown(&self, _: Unit, _: bool) -> Shown {
        Shown::Flag(*self)
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

impl Value for i32 {
    fn raw(&self) -> Raw<'_> {
        Raw::Number(i64::from(*self))
    }
    fn from_number(number: i64) -> Option<Self> {
        Self::try_from(number).ok()
    }
    fn parse(text: &str, _: Unit) -> Result<Self, String> {
        text.parse().map_err(|_| "a number".into())
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
    #[cfg(feature = "serde")]
    fn shown(&self, _: Unit, secrets: bool) -> Shown {
        Shown::Word(if secrets {
            self.reveal().to_string()
        } else {
            self.show()
        })
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
    #[cfg(feature = "serde")]
    fn shown(&self, _: Unit, _: bool) -> Shown {
        // drbdsetup shows no key as nothing.
        Shown::Word(if self.0 == 0 {
            String::new()
        } else {
            self.show()
        })
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// Where bits are set, least first.
struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let at = (self.0 != 0).then(|| self.0.trailing_zeros() as usize)?;
        self.0 &= self.0 - 1;
        Some(at)
    }
}

/// Whether two values are the same, where none is DRBD's default.
fn same<V: PartialEq>(a: Option<&V>, b: Option<&V>, default: Option<&V>) -> bool {
    match (a, b) {
        (None, None) => true,
        _ => a.or(default) == b.or(default),
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

macro_rules! range {
    () => {
        None
    };
    ($min:literal $max:literal) => {
        Some(($min, $max))
    };
}

/// The releases of a list of triples.
const fn releases<const N: usize>(triples: [(u16, u16, u16); N]) -> [Release; N] {
    let mut list = [Release::new(0, 0, 0); N];
    let mut at = 0;
    while at < N {
        list[at] = Release::new(triples[at].0, triples[at].1, triples[at].2);
        at += 1;
    }
    list
}

macro_rules! since {
    () => {
        &[]
    };
    ($list:expr) => {{
        const LIST: &[Release] = &releases($list);
        LIST
    }};
}

/// Attribute numbers of a nest of settings are below this.
const NUMBERS: usize = 64;

/// The place in `infos` of each attribute number, and one more; 0 for none.
const fn places(infos: &[OptionInfo], dialect: Dialect) -> [u8; NUMBERS] {
    let mut places = [0; NUMBERS];
    let mut at = 0;
    while at < infos.len() {
        let number = match dialect {
            Dialect::V84 => infos[at].v84,
            Dialect::V9 => infos[at].v9,
        };
        at += 1;
        if let Some(number) = number {
            assert!(places[number as usize] == 0, "one number for two settings");
            places[number as usize] = at as u8;
        }
    }
    places
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
           [$v84:tt $v9:tt] $($inv:ident)?, $default:literal $(, $min:literal ..= $max:literal)?
           $(, since $since:expr)?; )*
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
            /// Settings that go back to their default, by their place in `INFO`.
            #[cfg_attr(feature = "serde", serde(skip))]
            reset: u64,
        }

        const _: () = assert!($name::INFO.len() <= 64, "one bit each in `reset`");

        impl $name {
            /// What is known about each setting, in the order of the fields.
            pub const INFO: &'static [OptionInfo] = &[$(
                OptionInfo {
                    name: $word,
                    unit: Unit::$unit,
                    v84: nr!($v84),
                    v9: nr!($v9),
                    invariant: invariant!($($inv)?),
                    default: $default,
                    range: range!($($min $max)?),
                    since: since!($($since)?),
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

            /// Every setting that this dialect has, as DRBD starts from it.
            #[must_use]
            pub fn defaults(dialect: Dialect) -> Self {
                let mut all = Self::new();
                for info in Self::INFO.iter().filter(|info| info.number(dialect).is_some()) {
                    // The defaults are values of their settings: a test tries them all.
                    let _ = all.set(info.name, info.default);
                }
                all
            }

            /// Takes over what is set (or reset) in another, as DRBD does when
            /// settings are changed.
            pub fn overlay(&mut self, other: &Self) {
                let other = other.resolved();
                $(
                    if other.$field.is_some() {
                        self.$field = other.$field;
                    }
                )*
                self.unknown.extend(other.unknown);
            }

            /// Whether nothing is set, nor reset.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                *self == Self::default()
            }

            /// The settings that another set has otherwise, secrets included, where what is
            /// not set counts as DRBD's default.
            pub fn differing(&self, other: &Self) -> impl Iterator<Item = &'static OptionInfo> + use<> {
                static DEFAULTS: OnceLock<$name> = OnceLock::new();
                let defaults = DEFAULTS.get_or_init(|| {
                    let mut all = $name::new();
                    for info in $name::INFO {
                        // The defaults are values of their settings: a test tries them all.
                        let _ = all.set(info.name, info.default);
                    }
                    all
                });
                let same = [$(
                    same(self.$field.as_ref(), other.$field.as_ref(), defaults.$field.as_ref()),
                )*];
                // One bit each: mostly there is none.
                let bits = same.iter().rev().fold(0u64, |bits, same| bits << 1 | u64::from(!same));
                Bits(bits).map(|at| &Self::INFO[at])
            }

            /// Sends a setting back to DRBD's default, by its name in drbd.conf.
            ///
            /// # Errors
            /// When there is no such setting.
            pub fn reset(&mut self, name: &str) -> Result<(), OptionError> {
                let at = Self::INFO
                    .iter()
                    .position(|info| info.name == name)
                    .ok_or_else(|| OptionError::UnknownName(name.to_owned()))?;
                match name {
                    $($word => self.$field = None,)*
                    _ => {}
                }
                self.reset |= 1 << at;
                Ok(())
            }

            /// What a request would do with a setting; `None` when there is
            /// no such setting.
            #[must_use]
            pub fn setting(&self, name: &str) -> Option<Setting> {
                let at = Self::INFO.iter().position(|info| info.name == name)?;
                Some(match self.get(name) {
                    Some(value) => Setting::Set(value),
                    None if self.reset & (1 << at) != 0 => Setting::Default,
                    None => Setting::Leave,
                })
            }

            /// What is set, in drbdsetup's way.
            #[allow(dead_code, reason = "parameters of commands are not shown")]
            #[cfg(feature = "serde")]
            pub(crate) fn shown(&self, secrets: bool) -> Vec<(&'static str, Shown)> {
                let mut shown = Vec::new();
                $(
                    if let Some(value) = &self.$field {
                        shown.push(($word, value.shown(Unit::$unit, secrets)));
                    }
                )*
                shown
            }

            /// As it is sent: those that go back have their default's value.
            fn resolved(&self) -> Self {
                let mut resolved = self.clone();
                if self.reset == 0 {
                    return resolved;
                }
                resolved.reset = 0;
                for (at, info) in Self::INFO.iter().enumerate() {
                    if self.setting(info.name) == Some(Setting::Default) && self.reset & (1 << at) != 0 {
                        // The defaults are values of their settings: a test tries them all.
                        let _ = resolved.set(info.name, info.default);
                    }
                }
                resolved
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

            /// The first setting that this kernel does not have, or that is
            /// out of its range.
            pub(crate) fn check(
                &self,
                dialect: Dialect,
                release: Option<Release>,
            ) -> Result<(), Rejected> {
                let resolved = self.resolved();
                let values = [$(resolved.$field.as_ref().map(Value::measure),)*];
                for (info, value) in Self::INFO.iter().zip(values) {
                    let Some(value) = value else { continue };
                    let option = info.name;
                    if !info.is_in(dialect, release) {
                        let needs = info.since;
                        return Err(Rejected::Unsupported { option, dialect, release, needs });
                    }
                    if let Some((least, most)) = info.range
                        && let given = value.unwrap_or(least)
                        && !(least..=most).contains(&given)
                    {
                        return Err(Rejected::OutOfRange { option, given, least, most });
                    }
                }
                Ok(())
            }

            /// Writes what is set into a nest.
            pub(crate) fn encode<E: Endian>(&self, dialect: Dialect, nest: &mut Nest<'_, E>) {
                let resolved = self.resolved();
                let mut infos = Self::INFO.iter();
                $(
                    if let Some(info) = infos.next()
                        && let (Some(value), Some(number)) = (&resolved.$field, info.number(dialect))
                    {
                        put(nest, number, Wire::$wire, value);
                    }
                )*
                for attr in &self.unknown {
                    nest.bytes(attr.number | MANDATORY, &attr.payload);
                }
            }

            /// Reads a nest.
            #[allow(dead_code, reason = "some are only ever sent")]
            pub(crate) fn decode<E: Endian>(
                dialect: Dialect,
                nest: Attrs<'_, E>,
            ) -> Result<Self, WireError> {
                const PLACES84: [u8; NUMBERS] = places($name::INFO, Dialect::V84);
                const PLACES9: [u8; NUMBERS] = places($name::INFO, Dialect::V9);
                // In the order of the fields. Whether the value is one of the setting.
                let fields = [$(
                    |options: &mut Self, attr: &Attr<'_, E>| -> Result<bool, WireError> {
                        let value = get::<E, $ty>(attr, Wire::$wire)?;
                        let known = value.is_some();
                        options.$field = value.or(options.$field.take());
                        Ok(known)
                    } as fn(&mut Self, &Attr<'_, E>) -> Result<bool, WireError>,
                )*];
                let mut options = Self::default();
                let (skip, places): (&[u16], _) = match dialect {
                    Dialect::V84 => (&$skip84, &PLACES84),
                    Dialect::V9 => (&$skip9, &PLACES9),
                };
                for attr in nest {
                    let attr = attr?;
                    let place = places.get(usize::from(attr.number)).copied().unwrap_or(0);
                    let field = fields.get(usize::from(place).wrapping_sub(1));
                    let known = match field {
                        Some(field) => field(&mut options, &attr)?,
                        None => skip.contains(&attr.number),
                    };
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

/// The releases with TLS and load balancing.
const TLS: [(u16, u16, u16); 2] = [(9, 1, 18), (9, 2, 6)];

options! {
    /// Settings of a disk (`disk_conf`, the `disk` section).
    ///
    /// In 8.4 the resync controller and `fencing` live here; in 9 they are
    /// in [`PeerDeviceOptions`] and [`NetOptions`].
    DiskOptions, tla::DISK_CONF,
    skip84: [schema::disk_conf::BACKING_DEV, schema::disk_conf::META_DEV, schema::disk_conf::META_DEV_IDX],
    skip9: [schema::disk_conf::BACKING_DEV, schema::disk_conf::META_DEV, schema::disk_conf::META_DEV_IDX];
    /// Use only this much of the disk, in sectors; 0 for all of it. Fixed at attach.
    size: u64, "size", U64, Sectors, [4 4] I, "0", 0..=2_199_023_255_552;
    /// Limits segments of a request. Fixed at attach; 8.4 only.
    max_bio_bvecs: u32, "max-bio-bvecs", U32, None, [5 _] I, "0", 0..=128;
    /// What to do when the disk fails.
    on_io_error: OnIoError, "on-io-error", U32, None, [6 6], "detach";
    /// What to do when the peer is lost. 8.4 only; in 9 a setting of the connection.
    fencing: FencingPolicy, "fencing", U32, None, [7 _], "dont-care";
    /// Resync rate in KiB/s when the controller is off. 8.4 only, here.
    resync_rate: u32, "resync-rate", U32, KibPerSecond, [8 _], "250", 1..=4_194_304;
    /// Which device has to be in sync before.
    resync_after: ResyncAfter, "resync-after", I32, None, [9 9], "-1", -1..=1_048_575;
    /// Size of the activity log, in extents of 4 MiB.
    al_extents: u32, "al-extents", U32, None, [10 10], "1237", 67..=65_534;
    /// Resync controller: planning horizon in 1/10 s; 0 turns it off. 8.4 only, here.
    c_plan_ahead: u32, "c-plan-ahead", U32, Tenths, [11 _], "20", 0..=300;
    /// Resync controller: delay to aim for, in 1/10 s. 8.4 only, here.
    c_delay_target: u32, "c-delay-target", U32, Tenths, [12 _], "10", 1..=100;
    /// Resync controller: data in flight to aim for, in sectors. 8.4 only, here.
    c_fill_target: u32, "c-fill-target", U32, Sectors, [13 _], "100", 0..=1_048_576;
    /// Resync controller: most KiB/s. 8.4 only, here.
    c_max_rate: u32, "c-max-rate", U32, KibPerSecond, [14 _], "102400", 250..=4_194_304;
    /// Resync controller: least KiB/s under application I/O. 8.4 only, here.
    c_min_rate: u32, "c-min-rate", U32, KibPerSecond, [15 _], "250", 0..=4_194_304;
    /// Order writes by barriers.
    disk_barrier: bool, "disk-barrier", U8, None, [16 16], "no";
    /// Order writes by cache flushes.
    disk_flushes: bool, "disk-flushes", U8, None, [17 17], "yes";
    /// Order writes by waiting.
    disk_drain: bool, "disk-drain", U8, None, [18 18], "yes";
    /// Flush the cache after metadata writes.
    md_flushes: bool, "md-flushes", U8, None, [19 19], "yes";
    /// Give up on the disk after this long, in 1/10 s; 0 never.
    disk_timeout: u32, "disk-timeout", U32, Tenths, [20 20], "0", 0..=6_000;
    /// Where reads go.
    read_balancing: ReadBalancing, "read-balancing", U32, None, [21 21], "prefer-local";
    /// Requests in flight before the disk's queue is kicked. 9 only, here.
    unplug_watermark: u32, "unplug-watermark", U32, None, [_ 22], "128", 1..=131_072;
    /// Keep the activity log. Off means a full resync after a crash.
    al_updates: bool, "al-updates", U8, None, [23 23], "yes";
    /// Assume that aligned discards give zeroes.
    discard_zeroes_if_aligned: bool, "discard-zeroes-if-aligned", U8, None, [24 24], "yes";
    /// Resync zeroed areas by discards of this many bytes.
    rs_discard_granularity: u32, "rs-discard-granularity", U32, Bytes, [25 25], "0", 0..=1_048_576;
    /// Do not use WRITE SAME.
    disable_write_same: bool, "disable-write-same", U8, None, [26 26], "no";
    /// Keep a bitmap (9.3).
    bitmap: bool, "bitmap", U8, None, [_ 27], "yes", since [(9, 3, 0)];
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
    shared_secret: Secret, "shared-secret", Str, None, [1 1], "", 0..=63;
    /// Digest for peer authentication, such as `sha1`; its module must be loadable.
    cram_hmac_alg: Text, "cram-hmac-alg", Str, None, [2 2], "", 0..=63;
    /// Digest over data in transit.
    data_integrity_alg: Text, "data-integrity-alg", Str, None, [3 3], "", 0..=63;
    /// Digest of the online verify.
    verify_alg: Text, "verify-alg", Str, None, [4 4], "", 0..=63;
    /// Digest of a checksum based resync.
    csums_alg: Text, "csums-alg", Str, None, [5 5], "", 0..=63;
    /// When a write is complete.
    protocol: Protocol, "protocol", U32, None, [6 6], "C";
    /// Seconds between attempts to connect.
    connect_int: u32, "connect-int", U32, Seconds, [7 7], "10", 1..=120;
    /// Peer is dead after this long without an answer, in 1/10 s.
    timeout: u32, "timeout", U32, Tenths, [8 8], "60", 1..=600;
    /// Seconds without traffic before a keep-alive.
    ping_int: u32, "ping-int", U32, Seconds, [9 9], "10", 1..=120;
    /// Time for the answer to a keep-alive, in 1/10 s.
    ping_timeout: u32, "ping-timeout", U32, Tenths, [10 10], "5", 1..=300;
    /// Send buffer in bytes; 0 automatic.
    sndbuf_size: u32, "sndbuf-size", U32, Bytes, [11 11], "0", 0..=134_217_728;
    /// Receive buffer in bytes; 0 automatic.
    rcvbuf_size: u32, "rcvbuf-size", U32, Bytes, [12 12], "0", 0..=134_217_728;
    /// Give up on the peer after this many timeouts of one write; 0 never.
    ko_count: u32, "ko-count", U32, None, [13 13], "7", 0..=200;
    /// Pages for receiving and resync.
    max_buffers: u32, "max-buffers", U32, None, [14 36], "2048", 32..=131_072;
    /// Write requests between two barriers.
    max_epoch_size: u32, "max-epoch-size", U32, None, [15 15], "2048", 1..=20_000;
    /// Requests in flight before the disk's queue is kicked. 8.4 only, here.
    unplug_watermark: u32, "unplug-watermark", U32, None, [16 _], "128", 1..=131_072;
    /// Split brain, no Primary.
    after_sb_0pri: AfterSplitBrain, "after-sb-0pri", U32, None, [17 17], "disconnect";
    /// Split brain, one Primary.
    after_sb_1pri: AfterSplitBrain, "after-sb-1pri", U32, None, [18 18], "disconnect";
    /// Split brain, two Primaries.
    after_sb_2pri: AfterSplitBrain, "after-sb-2pri", U32, None, [19 19], "disconnect";
    /// Roles forbid the resync that is due.
    rr_conflict: RrConflict, "rr-conflict", U32, None, [20 20], "disconnect";
    /// What to do when the send queue is full.
    on_congestion: OnCongestion, "on-congestion", U32, None, [21 21], "block";
    /// Queue length that is congestion, in sectors; 0 off.
    congestion_fill: u32, "congestion-fill", U32, Sectors, [22 22], "0", 0..=20_971_520;
    /// Active extents that are congestion.
    congestion_extents: u32, "congestion-extents", U32, None, [23 23], "1237", 67..=65_534;
    /// Both nodes may be Primary.
    allow_two_primaries: bool, "allow-two-primaries", U8, None, [24 24], "no";
    /// Cork the sockets.
    tcp_cork: bool, "tcp-cork", U8, None, [26 26], "yes";
    /// Apply the after-sb policies although the generations are unrelated.
    always_asbp: bool, "always-asbp", U8, None, [27 27], "no";
    /// Compress bitmaps on the wire.
    use_rle: bool, "use-rle", U8, None, [29 29], "yes";
    /// What to do when the peer is lost. 9 only; in 8.4 a setting of the disk.
    fencing: FencingPolicy, "fencing", U32, None, [_ 30], "dont-care";
    /// Checksum based resync only after a crash.
    csums_after_crash_only: bool, "csums-after-crash-only", U8, None, [33 33], "no";
    /// Time for a connected socket to be confirmed, in 1/10 s.
    socket_check_timeout: u32, "socket-check-timeout", U32, Tenths, [34 34], "0", 0..=300;
    /// Transport module (9). Fixed once the peer exists.
    transport: Text, "transport", Str, None, [_ 35] I, "", 0..=63;
    /// Diskless reads may go to this peer (9).
    allow_remote_read: bool, "allow-remote-read", U8, None, [_ 37], "yes";
    /// Encrypt (9.2.6).
    tls: bool, "tls", U8, None, [_ 38], "no", since TLS;
    /// Key for TLS (9.2.6).
    tls_privkey: KeySerial, "tls-privkey", I32, None, [_ 39], "0", since TLS;
    /// Certificate for TLS (9.2.6).
    tls_certificate: KeySerial, "tls-certificate", I32, None, [_ 40], "0", since TLS;
    /// Keyring for TLS (9.2.6).
    tls_keyring: KeySerial, "tls-keyring", I32, None, [_ 41], "0", since TLS;
    /// Use all paths at once (9.2.6). Fixed once the peer exists.
    load_balance_paths: bool, "load-balance-paths", U8, None, [_ 42] I, "no", since TLS;
    /// RDMA control receive buffer in bytes (9.2.6).
    rdma_ctrl_rcvbuf_size: u32, "rdma-ctrl-rcvbuf-size", U32, Bytes, [_ 43], "0", 0..=10_485_760, since TLS;
    /// RDMA control send buffer in bytes (9.2.6).
    rdma_ctrl_sndbuf_size: u32, "rdma-ctrl-sndbuf-size", U32, Bytes, [_ 44], "0", 0..=10_485_760, since TLS;
}

options! {
    /// Settings of a resource (`res_opts`, the `options` section).
    ResourceOptions, tla::RESOURCE_OPTS,
    skip84: [],
    skip9: [schema::res_opts::NODE_ID];
    /// CPUs for the threads of the resource, as a hexadecimal mask.
    cpu_mask: Text, "cpu-mask", Str, None, [1 1], "", 0..=255;
    /// What happens to I/O when there is no data to be had.
    on_no_data_accessible: OnNoData, "on-no-data-accessible", U32, None, [2 2], "io-error";
    /// Opening for writing promotes (9).
    auto_promote: bool, "auto-promote", U8, None, [_ 3], "yes";
    /// Peer-ack every so many sectors (9).
    peer_ack_window: u32, "peer-ack-window", U32, Sectors, [_ 5], "4096", 2_048..=204_800;
    /// Time for a cluster wide state change, in 1/10 s (9).
    twopc_timeout: u32, "twopc-timeout", U32, Tenths, [_ 6], "300", 50..=600;
    /// Time before it is tried again, in 1/10 s (9).
    twopc_retry_timeout: u32, "twopc-retry-timeout", U32, Tenths, [_ 7], "1", 1..=50;
    /// Peer-ack after this long without writes, in ms (9).
    peer_ack_delay: u32, "peer-ack-delay", U32, Millis, [_ 8], "100", 1..=10_000;
    /// Time an opener waits for promotion, in 1/10 s (9).
    auto_promote_timeout: u32, "auto-promote-timeout", U32, Tenths, [_ 9], "20", 0..=600;
    /// Requests in flight (9).
    max_io_depth: u32, "max-io-depth", U32, None, [_ 10], "8000", 4..=4_294_967_295;
    /// Nodes needed to write (9).
    quorum: Quorum, "quorum", I32, None, [_ 11], "off", 0..=1_025;
    /// What happens to I/O without quorum (9).
    on_no_quorum: OnNoData, "on-no-quorum", U32, None, [_ 12], "suspend-io";
    /// UpToDate disks needed to write (9).
    quorum_minimum_redundancy: Quorum, "quorum-minimum-redundancy", I32, None, [_ 13], "off", 0..=1_025;
    /// A suspended Primary meets newer data (9.1.7).
    on_suspended_primary_outdated: OnSuspendedPrimaryOutdated,
        "on-suspended-primary-outdated", U32, None, [_ 14], "disconnect", since [(9, 1, 7)];
    /// Speak to an 8.4 peer (9.2.15).
    drbd8_compat_mode: bool, "drbd8-compat-mode", U8, None, [_ 15], "no", since [(9, 2, 15)];
    /// Offer the 8.4 interface (9.3).
    drbd8_api_compatibility: bool, "drbd8-api-compatibility", U8, None, [_ 16], "no", since [(9, 3, 0)];
}

options! {
    /// Settings of one volume towards one peer (`peer_device_conf`; 9 only).
    PeerDeviceOptions, tla::PEER_DEVICE_OPTS,
    skip84: [],
    skip9: [];
    /// Resync rate in KiB/s when the controller is off.
    resync_rate: u32, "resync-rate", U32, KibPerSecond, [_ 1], "250", 1..=8_388_608;
    /// Resync controller: planning horizon in 1/10 s; 0 turns it off.
    c_plan_ahead: u32, "c-plan-ahead", U32, Tenths, [_ 2], "20", 0..=300;
    /// Resync controller: delay to aim for, in 1/10 s.
    c_delay_target: u32, "c-delay-target", U32, Tenths, [_ 3], "10", 1..=100;
    /// Resync controller: data in flight to aim for, in sectors.
    c_fill_target: u32, "c-fill-target", U32, Sectors, [_ 4], "100", 0..=1_048_576;
    /// Resync controller: most KiB/s.
    c_max_rate: u32, "c-max-rate", U32, KibPerSecond, [_ 5], "102400", 0..=4_194_304;
    /// Resync controller: least KiB/s under application I/O.
    c_min_rate: u32, "c-min-rate", U32, KibPerSecond, [_ 6], "250", 0..=4_194_304;
    /// Keep a bitmap for this peer.
    bitmap: bool, "bitmap", U8, None, [_ 7], "yes";
    /// Resync although replication is not possible (9.2.14).
    resync_without_replication: bool, "resync-without-replication", U8, None, [_ 8], "yes", since [(9, 2, 14)];
    /// The peer counts as a tiebreaker (9.3.1).
    peer_tiebreaker: bool, "peer-tiebreaker", U8, None, [_ 9], "yes", since [(9, 3, 1)];
}

options! {
    /// Settings of a volume that is made (`device_conf`; 9 only).
    DeviceOptions, tla::DEVICE_CONF,
    skip84: [],
    skip9: [];
    /// Largest request in bytes.
    max_bio_size: u32, "max-bio-size", U32, Bytes, [_ 1] I, "1048576", 512..=1_048_576;
    /// Never meant to have a disk.
    diskless: bool, "diskless", U8, None, [_ 2] I, "no";
    /// Logical block size in bytes: 512, 1024, 2048 or 4096 (9.1.14, 9.2.3).
    block_size: u32, "block-size", U32, Bytes, [_ 3] I, "512", 512..=4_096,
        since [(9, 1, 14), (9, 2, 3)];
    /// Discard granularity in bytes; 0 for no discards (9.3.1).
    discard_granularity: u32, "discard-granularity", U32, Bytes, [_ 4] I, "4294967295",
        0..=4_294_967_295, since [(9, 3, 1)];
}

options! {
    /// How to resize (`resize_parms`).
    ResizeOptions, tla::RESIZE_PARMS,
    skip84: [],
    skip9: [];
    /// The size wanted, in sectors; without it, or 0: as large as the disks allow.
    size: u64, "size", U64, Sectors, [1 1], "0", 0..=2_199_023_255_552;
    /// Goes on although no peer is connected: it is sworn that its disk is
    /// large enough.
    assume_peer_has_space: bool, "assume-peer-has-space", U8, None, [2 2], "no";
    /// The new part is not resynced: it is sworn that it is equal on both sides.
    assume_clean: bool, "assume-clean", U8, None, [3 3], "no";
    /// Changes the layout of the activity log: stripes.
    al_stripes: u32, "al-stripes", U32, None, [4 4], "1", 1..=1_024;
    /// Changes the layout of the activity log: KiB a stripe.
    al_stripe_size: u32, "al-stripe-size-kB", U32, Kib, [5 5], "32", 4..=16_777_216;
}

options! {
    /// What to verify (`start_ov_parms`).
    VerifyOptions, tla::START_OV_PARMS,
    skip84: [],
    skip9: [];
    /// First sector; without it, where the last verify stopped.
    start: u64, "start", U64, Sectors, [1 1], "0", 0..=2_199_023_255_552;
    /// Last sector; without it, to the end.
    stop: u64, "stop", U64, Sectors, [2 2], "0", 0..=2_199_023_255_552;
}

options! {
    /// How to make a new generation (`new_c_uuid_parms`).
    NewUuidOptions, tla::NEW_C_UUID_PARMS,
    skip84: [],
    skip9: [];
    /// Declares both sides equal: no first sync. Only on day 0.
    clear_bitmap: bool, "clear-bitmap", U8, None, [1 1], "no";
    /// Peers get everything (9.0.21).
    force_resync: bool, "force-resync", U8, None, [_ 2], "no", since [(9, 0, 21)];
}

options! {
    /// How to invalidate (`invalidate_parms`; 9 only).
    InvalidateOptions, tla::INVALIDATE_PARMS,
    skip84: [],
    skip9: [];
    /// Node id of the peer to sync from; -1 for any.
    sync_from_peer_node_id: i32, "sync-from-peer-node-id", I32, None, [_ 1], "-1", -1..=31;
    /// Everything is resynced; otherwise what the bitmap says (9.0.29, 9.1.2).
    reset_bitmap: bool, "reset-bitmap", U8, None, [_ 2], "yes", since [(9, 0, 29), (9, 1, 2)];
}

options! {
    /// How to invalidate a peer's data (`invalidate_peer_parms`; 9 only).
    InvalidatePeerOptions, tla::INVAL_PEER_PARAMS,
    skip84: [],
    skip9: [];
    /// Everything is resynced; otherwise what the bitmap says (9.0.29, 9.1.2).
    reset_bitmap: bool, "reset-bitmap", U8, None, [_ 1], "yes", since [(9, 0, 29), (9, 1, 2)];
}

options! {
    /// How to suspend I/O (`suspend_io_parms`; 9.3).
    SuspendIoOptions, tla::SUSPEND_IO_PARAMS,
    skip84: [],
    skip9: [];
    /// Freezes the file system above first (9.3).
    bdev_freeze: bool, "bdev-freeze", U8, None, [_ 1], "yes", since [(9, 3, 0)];
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
    fn what_is_not_set_is_compared_as_the_default() {
        let names = |a: &NetOptions, b: &NetOptions| -> Vec<_> {
            a.differing(b).map(|info| info.name).collect()
        };
        let unset = NetOptions::new();
        let reported = NetOptions::defaults(Dialect::V9);
        assert_eq!(names(&unset, &reported), [""; 0]);
        let set = NetOptions::new()
            .ko_count(3u32)
            .shared_secret(Secret::new("x"));
        assert_eq!(names(&set, &reported), ["shared-secret", "ko-count"]);
        assert_eq!(names(&reported, &set), ["shared-secret", "ko-count"]);
        let other = set.clone().shared_secret(Secret::new("y"));
        assert_eq!(names(&set, &other), ["shared-secret"]);
        assert_eq!(names(&set, &set), [""; 0]);
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
        assert!(options.check(Dialect::V84, None).is_ok());
        let fenced = NetOptions::new().fencing(FencingPolicy::ResourceOnly);
        assert!(fenced.check(Dialect::V9, None).is_ok());
        let error = fenced.check(Dialect::V84, None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "option fencing is not known to DRBD 8.4: it needs DRBD 9"
        );
    }

    #[test]
    fn the_release_decides_what_is_there() {
        let tls = NetOptions::new().tls(true);
        let check = |release: &str| tls.check(Dialect::V9, Release::parse(release));
        for release in ["9.1.18", "9.1.23", "9.2.6", "9.2.18", "9.3.0", "10.0.0"] {
            assert_eq!(check(release), Ok(()), "{release}");
        }
        for release in ["9.0.32-1", "9.1.17", "9.2.0", "9.2.5"] {
            assert_eq!(
                check(release).unwrap_err().to_string(),
                format!(
                    "option tls is not known to DRBD {}: it needs DRBD 9.1.18 or 9.2.6",
                    Release::parse(release).unwrap()
                )
            );
        }
        assert_eq!(tls.check(Dialect::V9, None), Ok(()));
    }

    #[test]
    fn ranges_are_checked() {
        for (given, good) in [(66u32, false), (67, true), (65_534, true), (65_535, false)] {
            let options = DiskOptions::new().al_extents(given);
            assert_eq!(options.check(Dialect::V84, None).is_ok(), good, "{given}");
        }
        let error = DiskOptions::new().al_extents(5u32).check(Dialect::V9, None);
        assert_eq!(
            error.unwrap_err().to_string(),
            "option al-extents: 5 is not in 67 to 65534"
        );
        let long = NetOptions::new().shared_secret(Secret::new("x".repeat(64)));
        let error = long.check(Dialect::V84, None).unwrap_err().to_string();
        assert_eq!(error, "option shared-secret: 64 is not in 0 to 63");
    }

    /// Each default is a value of its setting and in its range, and is what
    /// goes out when the setting is reset.
    #[test]
    fn leave_set_and_reset_are_three_things() {
        macro_rules! defaults {
            ($($name:ident)*) => {$(
                for info in $name::INFO {
                    let mut options = $name::new();
                    assert_eq!(options.setting(info.name), Some(Setting::Leave));
                    options.reset(info.name).unwrap();
                    assert_eq!(options.setting(info.name), Some(Setting::Default));
                    assert!(!options.is_empty());
                    let mut set = $name::new();
                    set.set(info.name, info.default).unwrap();
                    for dialect in [Dialect::V84, Dialect::V9] {
                        if info.number(dialect).is_some() {
                            options.check(dialect, None).unwrap();
                        }
                        let (mut a, mut b) = (Vec::new(), Vec::new());
                        options.encode(dialect, &mut Nest::<Little>::new(&mut a, &mut false));
                        set.encode(dialect, &mut Nest::<Little>::new(&mut b, &mut false));
                        assert_eq!(a, b, "{}", info.name);
                    }
                    options.set(info.name, info.default).unwrap();
                    assert!(matches!(options.setting(info.name), Some(Setting::Set(_))));
                }
                assert!($name::new().reset("nosuch").is_err());
                assert_eq!($name::new().setting("nosuch"), None);
            )*};
        }
        defaults! {
            DiskOptions NetOptions ResourceOptions PeerDeviceOptions DeviceOptions ResizeOptions
            VerifyOptions NewUuidOptions InvalidateOptions InvalidatePeerOptions SuspendIoOptions
        }
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
