//! Which options there are, in which section, and what values they take.
//!
//! Limits are those of drbd-utils 9.22 (`drbdsetup xml-help`), the wider one where 8.4 and 9
//! differ; drbd-headers up to 9.3 adds a few names. The driver has the last word.

/// The section an option belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Section {
    /// `options { }`: the resource.
    Options,
    /// `disk { }`: the local disk; in 9 also the peer devices.
    Disk,
    /// `net { }`: connections.
    Net,
    /// `startup { }`: waiting at boot; never reaches the driver.
    Startup,
    /// `handlers { }`: commands the driver has run.
    Handlers,
    /// `proxy { }`: DRBD Proxy.
    Proxy,
}

impl Section {
    /// Returns the keyword of the section.
    pub fn keyword(self) -> &'static str {
        match self {
            Section::Options => "options",
            Section::Disk => "disk",
            Section::Net => "net",
            Section::Startup => "startup",
            Section::Handlers => "handlers",
            Section::Proxy => "proxy",
        }
    }
}

/// What a bare number counts; `k`, `M`, `G` (and `s` for sectors) convert to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Things, or a time in the unit of the option.
    One,
    /// Bytes.
    Bytes,
    /// 512-byte sectors.
    Sectors,
    /// KiB, or KiB per second.
    Kib,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// `yes` or `no`; the value may be left out for `yes`.
    Flag,
    Number {
        min: u64,
        max: u64,
        unit: Unit,
    },
    /// One of these words.
    Words(&'static [&'static str]),
    /// A number from 1 to 32, or one of these words.
    NumberOrWord(&'static [&'static str]),
    /// Any string up to this length.
    Text(usize),
    /// `resync-after`: a minor, or a resource with an optional volume.
    Device,
    /// Accepted and ignored by drbdadm.
    Ignored,
}

#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) section: Section,
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Taken in the old `syncer` section, too.
    pub(crate) syncer: bool,
}

const fn spec(section: Section, name: &'static str, kind: Kind) -> Spec {
    Spec {
        section,
        name,
        kind,
        syncer: false,
    }
}

/// With `syncer: true`.
const fn old(section: Section, name: &'static str, kind: Kind) -> Spec {
    Spec {
        section,
        name,
        kind,
        syncer: true,
    }
}

const fn number(min: u64, max: u64, unit: Unit) -> Kind {
    Kind::Number { min, max, unit }
}

const FENCING: Kind = Kind::Words(&["dont-care", "resource-only", "resource-and-stonith"]);
const IO_OR_SUSPEND: Kind = Kind::Words(&["io-error", "suspend-io"]);

use Kind::{Device, Flag, Ignored, NumberOrWord, Text, Words};
use Section::{Disk, Handlers, Net, Options, Proxy, Startup};
use Unit::{Bytes, Kib, One, Sectors};

/// In the order of the sections, and of the names in each.
pub(crate) static SPECS: &[Spec] = &[
    spec(Options, "auto-promote", Flag),
    spec(Options, "auto-promote-timeout", number(0, 600, One)),
    old(Options, "cpu-mask", Text(255)),
    spec(Options, "drbd8-api-compatibility", Flag),
    spec(Options, "max-io-depth", number(4, u32::MAX as u64, One)),
    old(Options, "on-no-data-accessible", IO_OR_SUSPEND),
    spec(Options, "on-no-quorum", IO_OR_SUSPEND),
    spec(
        Options,
        "on-suspended-primary-outdated",
        Words(&["disconnect", "force-secondary"]),
    ),
    spec(Options, "peer-ack-delay", number(1, 10000, One)),
    spec(Options, "peer-ack-window", number(2048, 204_800, Sectors)),
    spec(Options, "quorum", NumberOrWord(&["off", "majority", "all"])),
    spec(
        Options,
        "quorum-minimum-redundancy",
        NumberOrWord(&["off", "majority", "all"]),
    ),
    spec(Options, "twopc-retry-timeout", number(1, 50, One)),
    spec(Options, "twopc-timeout", number(50, 600, One)),
    // al-extents is not checked by drbdadm: the driver clamps it.
    old(Disk, "al-extents", number(0, u32::MAX as u64, One)),
    spec(Disk, "al-updates", Flag),
    spec(Disk, "bitmap", Flag),
    spec(Disk, "block-size", number(512, 4096, One)),
    old(Disk, "c-delay-target", number(1, 100, One)),
    old(Disk, "c-fill-target", number(0, 1_048_576, Sectors)),
    old(Disk, "c-max-rate", number(0, 4_194_304, Kib)),
    old(Disk, "c-min-rate", number(0, 4_194_304, Kib)),
    old(Disk, "c-plan-ahead", number(0, 300, One)),
    spec(Disk, "delay-probe-interval", Ignored),
    spec(Disk, "delay-probe-volume", Ignored),
    spec(Disk, "disable-write-same", Flag),
    spec(Disk, "discard-granularity", number(0, 134_217_728, Bytes)),
    spec(Disk, "discard-zeroes-if-aligned", Flag),
    spec(Disk, "disk-barrier", Flag),
    spec(Disk, "disk-drain", Flag),
    spec(Disk, "disk-flushes", Flag),
    spec(Disk, "disk-timeout", number(0, 6000, One)),
    spec(Disk, "fencing", FENCING),
    spec(Disk, "hold-off-threshold", Ignored),
    spec(Disk, "max-bio-bvecs", number(0, 128, One)),
    spec(Disk, "max-bio-size", number(512, 1_048_576, Bytes)),
    spec(Disk, "md-flushes", Flag),
    spec(
        Disk,
        "on-io-error",
        Words(&["pass_on", "call-local-io-error", "detach"]),
    ),
    spec(Disk, "peer-tracking", Flag),
    spec(
        Disk,
        "read-balancing",
        Words(&[
            "prefer-local",
            "prefer-remote",
            "round-robin",
            "least-pending",
            "when-congested-remote",
            "32K-striping",
            "64K-striping",
            "128K-striping",
            "256K-striping",
            "512K-striping",
            "1M-striping",
        ]),
    ),
    old(Disk, "resync-after", Device),
    old(Disk, "resync-rate", number(1, 8_388_608, Kib)),
    spec(Disk, "resync-without-replication", Flag),
    spec(Disk, "rs-discard-granularity", number(0, 1_048_576, Bytes)),
    spec(Disk, "size", number(0, 2_199_023_255_552, Sectors)),
    spec(Disk, "throttle-threshold", Ignored),
    spec(Disk, "use-bmbv", Ignored),
    spec(
        Net,
        "after-sb-0pri",
        Words(&[
            "disconnect",
            "discard-younger-primary",
            "discard-older-primary",
            "discard-zero-changes",
            "discard-least-changes",
            "discard-local",
            "discard-remote",
        ]),
    ),
    spec(
        Net,
        "after-sb-1pri",
        Words(&[
            "disconnect",
            "consensus",
            "discard-secondary",
            "call-pri-lost-after-sb",
            "violently-as0p",
        ]),
    ),
    spec(
        Net,
        "after-sb-2pri",
        Words(&["disconnect", "call-pri-lost-after-sb", "violently-as0p"]),
    ),
    spec(Net, "allow-remote-read", Flag),
    spec(Net, "allow-two-primaries", Flag),
    spec(Net, "always-asbp", Flag),
    spec(Net, "congestion-extents", number(67, 65534, One)),
    spec(Net, "congestion-fill", number(0, 20_971_520, Sectors)),
    spec(Net, "connect-int", number(1, 120, One)),
    spec(Net, "cram-hmac-alg", Text(63)),
    spec(Net, "csums-after-crash-only", Flag),
    old(Net, "csums-alg", Text(63)),
    spec(Net, "data-integrity-alg", Text(63)),
    spec(Net, "fencing", FENCING),
    spec(Net, "ko-count", number(0, 200, One)),
    spec(Net, "load-balance-paths", Flag),
    spec(Net, "max-buffers", number(32, 131_072, One)),
    spec(Net, "max-epoch-size", number(1, 20000, One)),
    spec(
        Net,
        "on-congestion",
        Words(&["block", "pull-ahead", "disconnect"]),
    ),
    spec(Net, "ping-int", number(1, 120, One)),
    spec(Net, "ping-timeout", number(1, 300, One)),
    spec(Net, "protocol", Words(&["A", "B", "C"])),
    spec(Net, "rcvbuf-size", number(0, 134_217_728, Bytes)),
    spec(Net, "rdma-ctrl-rcvbuf-size", number(0, 10_485_760, Bytes)),
    spec(Net, "rdma-ctrl-sndbuf-size", number(0, 10_485_760, Bytes)),
    spec(
        Net,
        "rr-conflict",
        Words(&[
            "disconnect",
            "call-pri-lost",
            "violently",
            "retry-connect",
            "auto-discard",
        ]),
    ),
    spec(Net, "shared-secret", Text(63)),
    spec(Net, "sndbuf-size", number(0, 134_217_728, Bytes)),
    spec(Net, "socket-check-timeout", number(0, 300, One)),
    spec(Net, "tcp-cork", Flag),
    spec(Net, "timeout", number(1, 600, One)),
    spec(Net, "tls", Flag),
    spec(Net, "tls-certificate", number(0, i32::MAX as u64, One)),
    spec(Net, "tls-keyring", number(0, i32::MAX as u64, One)),
    spec(Net, "tls-privkey", number(0, i32::MAX as u64, One)),
    spec(Net, "transport", Text(63)),
    spec(Net, "unplug-watermark", number(1, 131_072, One)),
    old(Net, "use-rle", Flag),
    old(Net, "verify-alg", Text(63)),
    spec(Startup, "degr-wfc-timeout", number(0, 10_000_000, One)),
    spec(Startup, "outdated-wfc-timeout", number(0, 10_000_000, One)),
    spec(Startup, "wait-after-sb", Flag),
    spec(Startup, "wfc-timeout", number(0, 10_000_000, One)),
    spec(Handlers, "after-resync-target", Text(255)),
    spec(Handlers, "before-resync-source", Text(255)),
    spec(Handlers, "before-resync-target", Text(255)),
    spec(Handlers, "disconnected", Text(255)),
    spec(Handlers, "fence-peer", Text(255)),
    spec(Handlers, "initial-split-brain", Text(255)),
    spec(Handlers, "local-io-error", Text(255)),
    spec(Handlers, "out-of-sync", Text(255)),
    spec(Handlers, "pri-lost", Text(255)),
    spec(Handlers, "pri-lost-after-sb", Text(255)),
    spec(Handlers, "pri-on-incon-degr", Text(255)),
    spec(Handlers, "quorum-lost", Text(255)),
    spec(Handlers, "split-brain", Text(255)),
    spec(Handlers, "unfence-peer", Text(255)),
    spec(Proxy, "bwlimit", Text(255)),
    spec(Proxy, "compression", Text(255)),
    spec(Proxy, "memlimit", Text(255)),
    spec(Proxy, "ping-timeout", Text(255)),
    spec(Proxy, "rcvbuf-size", Text(255)),
    spec(Proxy, "read-loops", Text(255)),
    spec(Proxy, "sndbuf-size", Text(255)),
];

/// Names of former versions, and what they are called now.
const RENAMED: &[(Section, &str, &str)] = &[
    (Disk, "rate", "resync-rate"),
    (Disk, "after", "resync-after"),
    (Handlers, "outdate-peer", "fence-peer"),
];

/// Flags that had a negative form.
const NEGATED: &[(Section, &str)] = &[
    (Disk, "disk-barrier"),
    (Disk, "disk-flushes"),
    (Disk, "disk-drain"),
    (Disk, "md-flushes"),
    (Net, "tcp-cork"),
];

/// What a name in a section stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resolved {
    pub(crate) spec: &'static Spec,
    /// The name is the old form of `spec.name`.
    pub(crate) renamed: bool,
    /// The name is the old form that means `no`.
    pub(crate) negated: bool,
}

/// Finds an option by its name in a section.
pub(crate) fn find(section: Section, name: &str) -> Option<Resolved> {
    let exact = |name: &str| {
        let wanted = (section as u8, name);
        let at = SPECS.binary_search_by(|s| (s.section as u8, s.name).cmp(&wanted));
        at.ok().map(|at| &SPECS[at])
    };
    if let Some(spec) = exact(name) {
        return Some(Resolved {
            spec,
            renamed: false,
            negated: false,
        });
    }
    if let Some((_, _, new)) = RENAMED
        .iter()
        .find(|(s, old, _)| *s == section && *old == name)
    {
        return exact(new).map(|spec| Resolved {
            spec,
            renamed: true,
            negated: false,
        });
    }
    let positive = name.strip_prefix("no-")?;
    let (_, positive) = NEGATED
        .iter()
        .find(|(s, n)| *s == section && *n == positive)?;
    exact(positive).map(|spec| Resolved {
        spec,
        renamed: true,
        negated: true,
    })
}

/// Finds an option that the old `syncer` section took, whatever section it is in now.
pub(crate) fn find_syncer(name: &str) -> Option<Resolved> {
    [Section::Disk, Section::Net, Section::Options]
        .into_iter()
        .find_map(|section| find(section, name).filter(|r| r.spec.syncer))
}

/// The name in this section that is most like a misspelt one.
pub(crate) fn similar(section: Section, name: &str) -> Option<&'static str> {
    SPECS
        .iter()
        .filter(|s| s.section == section)
        .map(|s| (distance(s.name, name), s.name))
        .min()
        .filter(|(d, best)| *d <= 2.max(best.len() / 4))
        .map(|(_, best)| best)
}

/// Number of characters to insert, delete or change.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let cost = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Reads a number with an optional suffix, in the unit given. `None`: not a number, or too large.
pub(crate) fn parse_number(text: &str, unit: Unit) -> Option<u64> {
    let (digits, scale) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], Some(1u64 << 10)),
        b'm' | b'M' => (&text[..text.len() - 1], Some(1 << 20)),
        b'g' | b'G' => (&text[..text.len() - 1], Some(1 << 30)),
        b's' => (&text[..text.len() - 1], Some(1 << 9)),
        _ => (text, None),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    let one = match unit {
        Unit::One | Unit::Bytes => 1,
        Unit::Sectors => 512,
        Unit::Kib => 1024,
    };
    match scale {
        None => Some(n),
        // A part of a unit counts as a whole one.
        Some(scale) => n.checked_mul(scale).map(|bytes| bytes.div_ceil(one)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    #[test]
    fn numbers_convert_to_the_unit_of_the_option() {
        assert_eq!(parse_number("200M", Unit::Kib), Some(204_800));
        assert_eq!(parse_number("10", Unit::Kib), Some(10));
        assert_eq!(parse_number("10k", Unit::Sectors), Some(20));
        assert_eq!(parse_number("3s", Unit::Kib), Some(2));
        assert_eq!(parse_number("1G", Unit::Bytes), Some(1 << 30));
        for bad in [
            "",
            "k",
            "-1",
            "1.5",
            "1kk",
            "99999999999999999999",
            "99999999999999999G",
        ] {
            assert_eq!(parse_number(bad, Unit::Bytes), None, "{bad}");
        }
    }

    #[test]
    fn every_option_stands_once_in_its_order() {
        let order = |s: &Spec| (s.section as u8, s.name);
        for pair in SPECS.windows(2) {
            assert!(order(&pair[0]) < order(&pair[1]), "{}", pair[1].name);
        }
    }

    #[test]
    fn misspelt_names_are_recognised() {
        assert_eq!(similar(Section::Net, "shared-secrt"), Some("shared-secret"));
        assert_eq!(similar(Section::Disk, "resinc-rate"), Some("resync-rate"));
        assert_eq!(similar(Section::Net, "xyz"), None);
    }
}
