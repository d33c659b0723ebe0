//! Metadata as text, in the form of drbdmeta's `dump-md`, and back.

use std::fmt::Write as _;
use std::io::Write;

use crate::Target;
use crate::activity_log::initialized_block;
use crate::create::{Overwrite, fill, fresh_superblock, place, refuse, write_superblock};
use crate::device::{Access, Buffer, Device};
use crate::error::{Cause, Error, Result};
use crate::layout::{BLOCK, Layout, bitmap_bytes, superblock_offset};
use crate::probe;
use crate::superblock::{DRBD_PEERS_MAX, Flags, Format, PeerFlags, Superblock};
use crate::units::{Sectors, Uuid};

/// How much of a bitmap is in memory at once; drbdmeta's figure, which shows in the runs it writes.
const CHUNK: u64 = 32 << 20;
/// 32-bit words in a line.
const LINE: usize = 8;

/// Writes the metadata of a device as text: what `drbdmeta dump-md` prints, without its header.
///
/// # Errors
/// `WrongState` if the activity log has to be applied first, since the bitmap does not say
/// everything before; `NoMetadata`, `Corrupt`, and the errors of opening, reading, and writing to
/// `out`.
///
/// # Privileges
/// Permission to read the device.
pub fn dump(target: &Target, out: &mut impl Write) -> Result<()> {
    let op = "dump metadata of";
    let device = Device::open(&target.path, Access::Read, op)?;
    let at = superblock_offset(target.placement, device.size());
    let mut sb =
        probe::superblock(target, &device)?.ok_or_else(|| device.error(at, Cause::NoMetadata))?;
    let layout = Layout::of(&sb, target.placement, device.size()).ok_or_else(|| {
        let text = "log or bitmap are outside of the device";
        device.error(at, Cause::Corrupt(text.into()))
    })?;
    if sb.needs_activity_log_applied() {
        let text = "the activity log has to be applied first";
        return Err(device.error(at, Cause::State(text.into())));
    }
    sb.effective_size = Sectors(sb.effective_size.0.min(layout.usable));
    let mut emit = |text: &str| {
        out.write_all(text.as_bytes())
            .map_err(|e| Error::os(op, &target.path, None, e))
    };
    emit(&head(&sb, &layout))?;
    let in_use = layout.bitmap_in_use(&sb);
    let mut bits = 0;
    for slot in 0..sb.max_peers {
        match sb.format {
            Format::V09 => emit(&format!("bitmap[{slot}] "))?,
            _ => emit("bm ")?,
        }
        bits = bitmap(&device, &layout, &sb, in_use, slot, &mut emit)?;
    }
    emit(&format!("# bits-set {bits};\n"))
}

/// Returns the metadata of a device as text, see [`dump`].
///
/// # Errors
/// As [`dump`].
///
/// # Privileges
/// Permission to read the device.
pub fn dump_to_string(target: &Target) -> Result<String> {
    let mut out = Vec::new();
    dump(target, &mut out)?;
    let text = "the text is ASCII";
    String::from_utf8(out).map_err(|_| {
        Error::new(
            "dump metadata of",
            &target.path,
            None,
            Cause::Corrupt(text.into()),
        )
    })
}

fn head(sb: &Superblock, layout: &Layout) -> String {
    let mut t = String::new();
    // Writing to a String does not fail.
    let mut put = |args: std::fmt::Arguments<'_>| {
        let _ = t.write_fmt(args);
    };
    put(format_args!("version \"{}\";\n\n", sb.format));
    if sb.format == Format::V09 {
        put(format_args!("max-peers {};\n", sb.max_peers));
    }
    put(format_args!(
        "# md_size_sect {}\n# md_offset {}\n# al_offset {}\n# bm_offset {}\n\n",
        sb.md_size.0, layout.superblock, layout.al, layout.bitmap
    ));
    let uuid = |u: Option<Uuid>| format!("0x{:016X}", Uuid::to_disk(u));
    let history = |i: usize| uuid(sb.history_uuids.get(i).copied());
    let current = uuid(sb.current_uuid);
    let flags = sb.flags.bits();
    if sb.format == Format::V09 {
        let id = sb.node_id.map_or(-1, i32::from);
        put(format_args!(
            "node-id {id};\ncurrent-uuid {current};\nflags 0x{flags:08X};\n"
        ));
        for (i, p) in sb.peers.iter().enumerate() {
            put(format_args!(
                "peer[{i}] {{\n    bitmap-index {};\n    bitmap-uuid {};\n    bitmap-dagtag \
                 0x{:016X};\n    flags 0x{:08X};{}\n}}\n",
                p.bitmap_index.map_or(-1, i64::from),
                uuid(p.bitmap_uuid),
                p.bitmap_dagtag,
                p.flags,
                named(p.flags),
            ));
        }
        put(format_args!("history-uuids {{"));
        for i in 0..32 {
            let gap = if i % 4 == 0 { "\n        " } else { " " };
            put(format_args!("{gap}{};", history(i)));
        }
        put(format_args!("\n}}\n"));
    } else {
        let of_peer = uuid(sb.peers.first().and_then(|p| p.bitmap_uuid));
        put(format_args!(
            "uuid {{\n    {current}; {of_peer}; {}; {};\n    flags 0x{flags:08X};\n}}\n",
            history(0),
            history(1)
        ));
    }
    put(format_args!("# al-extents {};\n", sb.al_nr_extents));
    put(format_args!("la-size-sect {};\n", sb.effective_size.0));
    put(format_args!("bm-byte-per-bit {};\n", sb.bm_bytes_per_bit));
    put(format_args!("device-uuid 0x{:016X};\n", sb.device_uuid));
    put(format_args!(
        "la-peer-max-bio-size {};\n",
        sb.la_peer_max_bio_size
    ));
    put(format_args!("al-stripes {};\n", sb.al_stripes));
    put(format_args!(
        "al-stripe-size-4k {};\n",
        sb.al_stripe_size_4k
    ));
    put(format_args!("# bm-bytes {};\n", layout.bitmap_in_use(sb)));
    t
}

/// Flags of a peer in words, as a comment.
fn named(flags: u32) -> String {
    let mut out = String::new();
    for bit in (0..32).map(|i| 1u32 << i).filter(|bit| flags & bit != 0) {
        let gap = if out.is_empty() { " # " } else { " | " };
        let name = match PeerFlags::from_bits_retain(bit) {
            PeerFlags::CONNECTED => "connected",
            PeerFlags::OUTDATED => "<=outdated",
            PeerFlags::FENCING => "fencing",
            PeerFlags::FULL_SYNC => "full-sync",
            PeerFlags::DEVICE_SEEN => "seen",
            _ if bit == 1 << 16 => "exists",
            _ => {
                let _ = write!(out, "{gap}0x{bit:x}=?");
                continue;
            }
        };
        let _ = write!(out, "{gap}{name}");
    }
    out
}

/// Writes the bitmap of one slot and returns how many bits are set.
///
/// The 32-bit words of all slots lie in turn. Eight of one slot make a line; lines that repeat are
/// written as a count of 64-bit words.
fn bitmap(
    device: &Device,
    layout: &Layout,
    sb: &Superblock,
    in_use: u64,
    slot: u32,
    emit: &mut impl FnMut(&str) -> Result<()>,
) -> Result<u64> {
    let peers = u64::from(sb.max_peers);
    let chunk = CHUNK - CHUNK % (BLOCK * peers);
    let words = (in_use / 4).saturating_sub(u64::from(slot)).div_ceil(peers);
    let mut bits = 0;
    let mut line = String::from("{");
    // A run that goes on from one chunk into the next.
    let mut run: Option<(u64, u32)> = None;
    let mut at = 0;
    while at < words {
        let from = at * peers * 4;
        let len = chunk.min((in_use - from).next_multiple_of(512));
        let raw = device.read(layout.bitmap + from, len.next_multiple_of(BLOCK) as usize)?;
        let here: Vec<u32> = raw[..len as usize]
            .chunks_exact(4)
            .skip(slot as usize)
            .step_by(peers as usize)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .take((words - at) as usize)
            .collect();
        let mut i = 0;
        while i < here.len() {
            let word = run.map_or(here[i], |(_, w)| w);
            if run.is_none() {
                let index = (at + i as u64) * peers;
                if (index + u64::from(slot)) & 63 == u64::from(slot) {
                    let _ = write!(line, "\n   # at {}kB", 128 * index);
                }
                line.push_str("\n   ");
            }
            let same = here[i..].iter().take_while(|w| **w == word).count();
            let lines = same - same % LINE;
            if lines > LINE {
                run = Some((run.map_or(0, |(n, _)| n) + lines as u64, word));
                i += lines;
                if i == here.len() && at + (i as u64) < words {
                    // More of it may be in the next chunk.
                    break;
                }
            }
            if let Some((n, w)) = run.take() {
                let _ = write!(line, " {} times 0x{w:08X}{w:08X};", n / 2);
                bits += n * u64::from(w.count_ones());
                continue;
            }
            for pair in here[i..].chunks(2).take(LINE / 2) {
                bits += pair.iter().map(|w| u64::from(w.count_ones())).sum::<u64>();
                // Half of a 64-bit word at the end is past every bit that means something.
                if let [low, high] = pair {
                    let _ = write!(line, " 0x{high:08X}{low:08X};");
                }
            }
            i += LINE.min(here.len() - i);
            if line.len() > 1 << 16 {
                emit(&line)?;
                line.clear();
            }
        }
        at += here.len() as u64;
        if here.is_empty() {
            break;
        }
    }
    if let Some((n, w)) = run {
        let _ = write!(line, " {} times 0x{w:08X}{w:08X};", n / 2);
        bits += n * u64::from(w.count_ones());
    }
    line.push_str("\n}\n");
    emit(&line)?;
    Ok(bits)
}

/// Metadata read from text: a superblock without a place, and runs of 64-bit words for each slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    sb: Superblock,
    slots: Vec<Vec<(u64, u64)>>,
}

/// Where text is no dump, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpError {
    /// Line, counted from 1.
    pub line: usize,
    /// What was expected there.
    pub message: String,
}

impl std::fmt::Display for DumpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "metadata dump, line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for DumpError {}

impl Dump {
    /// Reads what [`dump`] or `drbdmeta dump-md` wrote.
    ///
    /// # Errors
    /// The first place where the text is no dump, or says what cannot be.
    pub fn parse(text: &str) -> Result<Dump, DumpError> {
        Parser { text, line: 1 }.dump()
    }

    /// Returns the superblock; its positions are set when it is [restored](Dump::restore).
    pub fn superblock(&self) -> &Superblock {
        &self.sb
    }

    /// Writes the metadata to a device, with an empty activity log.
    ///
    /// Over other metadata, a crash leaves that, or metadata that is
    /// [unfinished](Superblock::is_unfinished): the driver refuses it, and this can be repeated.
    /// Bits past the end of the device are left out, as drbdmeta does. Returns the superblock as
    /// written.
    ///
    /// # Errors
    /// As [`create`](crate::create()).
    ///
    /// # Privileges
    /// Permission to write the device.
    pub fn restore(&self, target: &Target, overwrite: &Overwrite) -> Result<Superblock> {
        let device = Device::open(&target.path, Access::Exclusive, "restore metadata on")?;
        let found = probe::look(target, &device)?;
        refuse(&device, &found, overwrite)?;
        let mut sb = self.sb.clone();
        let layout = place(target, &device, &mut sb)?;
        sb.effective_size = Sectors(sb.effective_size.0.min(layout.usable));

        let mut unfinished = fresh_superblock(sb.format, sb.max_peers);
        (unfinished.al_stripes, unfinished.al_stripe_size_4k) =
            (sb.al_stripes, sb.al_stripe_size_4k);
        unfinished.bm_bytes_per_bit = sb.bm_bytes_per_bit;
        unfinished.flags = Flags::empty();
        place(target, &device, &mut unfinished)?;
        write_superblock(&device, layout.superblock, &unfinished)?;
        fill(&device, layout.al, &initialized_block(), sb.al_blocks())?;
        let room = match target.placement {
            crate::Placement::Internal => {
                bitmap_bytes(device.size() >> 9, sb.bm_bytes_per_bit, sb.max_peers)
            }
            _ => layout.bitmap_room(&sb),
        };
        self.write_bitmap(&device, &layout, layout.bitmap_in_use(&sb), room)?;
        write_superblock(&device, layout.superblock, &sb)?;
        Ok(sb)
    }

    fn write_bitmap(&self, device: &Device, layout: &Layout, in_use: u64, room: u64) -> Result<()> {
        let peers = self.slots.len().max(1);
        let mut readers: Vec<Run<'_>> = self.slots.iter().map(|s| Run::new(s)).collect();
        // Whole rounds of words of all slots, in whole blocks.
        let window = (1 << 16) * peers as u64;
        let mut at = 0;
        while at < in_use {
            let len = window.min(in_use - at);
            let padded = len.next_multiple_of(BLOCK).min(room - at);
            let mut buffer = Buffer::zeroed(padded as usize);
            let words = (len / 4) as usize;
            for first in (0..words).step_by(2 * peers) {
                for (slot, reader) in readers.iter_mut().enumerate() {
                    let value = reader.next();
                    let halves = [value as u32, (value >> 32) as u32];
                    for (i, half) in halves.into_iter().enumerate() {
                        let word = first + i * peers + slot;
                        if word < words {
                            buffer[4 * word..4 * word + 4].copy_from_slice(&half.to_le_bytes());
                        }
                    }
                }
            }
            device.write(layout.bitmap + at, &buffer)?;
            device.flush_and_verify(layout.bitmap + at, &buffer)?;
            at += window;
        }
        let end = in_use.next_multiple_of(BLOCK).min(room);
        fill(
            device,
            layout.bitmap + end,
            &[0; BLOCK as usize],
            (room - end) / BLOCK,
        )
    }
}

/// Goes through runs word by word; zeros after the end.
struct Run<'a> {
    runs: std::slice::Iter<'a, (u64, u64)>,
    left: u64,
    value: u64,
}

impl<'a> Run<'a> {
    fn new(runs: &'a [(u64, u64)]) -> Run<'a> {
        Run {
            runs: runs.iter(),
            left: 0,
            value: 0,
        }
    }

    fn next(&mut self) -> u64 {
        while self.left == 0 {
            let Some((times, value)) = self.runs.next() else {
                return 0;
            };
            (self.left, self.value) = (*times, *value);
        }
        self.left -= 1;
        self.value
    }
}

struct Parser<'a> {
    text: &'a str,
    line: usize,
}

type Parsed<T> = std::result::Result<T, DumpError>;

impl<'a> Parser<'a> {
    fn fail<T>(&self, message: impl Into<String>) -> Parsed<T> {
        Err(DumpError {
            line: self.line,
            message: message.into(),
        })
    }

    /// The next word or sign; empty at the end.
    fn token(&mut self) -> &'a str {
        loop {
            let trimmed = self.text.trim_start();
            let skipped = &self.text[..self.text.len() - trimmed.len()];
            self.line += skipped.matches('\n').count();
            self.text = trimmed;
            let Some(_) = trimmed.strip_prefix('#') else {
                break;
            };
            self.text = &trimmed[trimmed.find('\n').unwrap_or(trimmed.len())..];
        }
        let is_sign = |c: char| "{}[];".contains(c);
        let end = match self.text.chars().next() {
            None => 0,
            Some(c) if is_sign(c) => 1,
            Some(_) => self
                .text
                .find(|c: char| c.is_whitespace() || is_sign(c) || c == '#')
                .unwrap_or(self.text.len()),
        };
        let (token, rest) = self.text.split_at(end);
        self.text = rest;
        token
    }

    fn expect(&mut self, what: &str) -> Parsed<()> {
        match self.token() {
            found if found == what => Ok(()),
            "" => self.fail(format!("expected \"{what}\", found the end")),
            found => {
                let found: String = found.chars().take(40).collect();
                self.fail(format!("expected \"{what}\", found \"{found}\""))
            }
        }
    }

    fn number<T: TryFrom<i64>>(&mut self) -> Parsed<T> {
        let token = self.token();
        match token.parse::<i64>().ok().and_then(|n| T::try_from(n).ok()) {
            Some(n) => Ok(n),
            None => {
                let token: String = token.chars().take(40).collect();
                self.fail(format!("expected a number, found \"{token}\""))
            }
        }
    }

    fn hex(&mut self, digits: usize) -> Parsed<u64> {
        let token = self.token();
        let number = token
            .strip_prefix("0x")
            .filter(|d| d.len() == digits && d.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|d| u64::from_str_radix(d, 16).ok());
        match number {
            Some(n) => Ok(n),
            None => {
                let token: String = token.chars().take(40).collect();
                self.fail(format!(
                    "expected 0x and {digits} hexadecimal digits, found \"{token}\""
                ))
            }
        }
    }

    /// `NAME number;`
    fn named_number<T: TryFrom<i64>>(&mut self, name: &str) -> Parsed<T> {
        self.expect(name)?;
        let n = self.number()?;
        self.expect(";")?;
        Ok(n)
    }

    fn named_hex(&mut self, name: &str, digits: usize) -> Parsed<u64> {
        self.expect(name)?;
        let n = self.hex(digits)?;
        self.expect(";")?;
        Ok(n)
    }

    fn named_flags(&mut self) -> Parsed<u32> {
        Ok(self.named_hex("flags", 8)? as u32)
    }

    fn dump(mut self) -> Parsed<Dump> {
        self.expect("version")?;
        let format = match self.token() {
            "\"v08\"" => Format::V08,
            "\"v09\"" => Format::V09,
            other => {
                let other: String = other.chars().take(40).collect();
                return self.fail(format!("expected \"v08\" or \"v09\", found {other}"));
            }
        };
        self.expect(";")?;
        let max_peers = match format {
            Format::V09 => self.named_number("max-peers")?,
            _ => 1,
        };
        if !(1..DRBD_PEERS_MAX).contains(&max_peers) {
            return self.fail(format!("room for {max_peers} peers (1 to 31 are possible)"));
        }
        let mut sb = fresh_superblock(format, max_peers);
        let uuid = |n: u64| (n != 0).then_some(Uuid(n));
        if format == Format::V09 {
            let id: i32 = self.named_number("node-id")?;
            sb.node_id = match id {
                -1 => None,
                0..=31 => Some(id as u8),
                _ => return self.fail(format!("node id {id} (-1 to 31 are possible)")),
            };
            sb.current_uuid = uuid(self.named_hex("current-uuid", 16)?);
            sb.flags = Flags::from_bits_retain(self.named_flags()?);
            let mut seen = 0u32;
            for _ in 0..DRBD_PEERS_MAX {
                self.expect("peer")?;
                self.expect("[")?;
                let slot: usize = self.number()?;
                self.expect("]")?;
                if slot >= DRBD_PEERS_MAX as usize || seen & (1 << slot) != 0 {
                    return self.fail(format!("peer {slot} is out of range, or a second one"));
                }
                seen |= 1 << slot;
                self.expect("{")?;
                let index: i32 = self.named_number("bitmap-index")?;
                let peer = &mut sb.peers[slot];
                peer.bitmap_index = u32::try_from(index).ok();
                peer.bitmap_uuid = uuid(self.named_hex("bitmap-uuid", 16)?);
                peer.bitmap_dagtag = self.named_hex("bitmap-dagtag", 16)?;
                peer.flags = self.named_flags()?;
                self.expect("}")?;
            }
            self.expect("history-uuids")?;
            self.expect("{")?;
            for _ in 0..32 {
                sb.history_uuids.push(Uuid(self.hex(16)?));
                self.expect(";")?;
            }
            self.expect("}")?;
        } else {
            self.expect("uuid")?;
            self.expect("{")?;
            let mut uuids = [0; 4];
            for u in &mut uuids {
                *u = self.hex(16)?;
                self.expect(";")?;
            }
            sb.current_uuid = uuid(uuids[0]);
            sb.peers[0].bitmap_uuid = uuid(uuids[1]);
            sb.history_uuids = vec![Uuid(uuids[2]), Uuid(uuids[3])];
            sb.flags = Flags::from_bits_retain(self.named_flags()?);
            self.expect("}")?;
        }
        while sb.history_uuids.last() == Some(&Uuid(0)) {
            sb.history_uuids.pop();
        }
        sb.effective_size = Sectors(self.named_number::<u64>("la-size-sect")?);
        sb.bm_bytes_per_bit = self.named_number("bm-byte-per-bit")?;
        if sb.bm_bytes_per_bit < 4096 || !sb.bm_bytes_per_bit.is_power_of_two() {
            return self.fail(format!("{} bytes per bitmap bit", sb.bm_bytes_per_bit));
        }
        sb.device_uuid = self.named_hex("device-uuid", 16)?;
        sb.la_peer_max_bio_size = self.named_number("la-peer-max-bio-size")?;
        sb.al_stripes = self.named_number("al-stripes")?;
        sb.al_stripe_size_4k = self.named_number("al-stripe-size-4k")?;
        if !(8..=crate::superblock::AL_BLOCKS_MAX).contains(&sb.al_blocks()) {
            return self.fail(format!("an activity log of {} blocks", sb.al_blocks()));
        }
        let mut slots = Vec::new();
        for slot in 0..max_peers {
            match format {
                Format::V09 => {
                    self.expect("bitmap")?;
                    self.expect("[")?;
                    let n: u32 = self.number()?;
                    self.expect("]")?;
                    if n != slot {
                        return self.fail(format!("expected bitmap[{slot}], found bitmap[{n}]"));
                    }
                }
                _ => self.expect("bm")?,
            }
            slots.push(self.runs()?);
        }
        match self.token() {
            "" => Ok(Dump { sb, slots }),
            more => {
                let more: String = more.chars().take(40).collect();
                self.fail(format!("expected the end, found \"{more}\""))
            }
        }
    }

    /// `{ [N times] 0x…; … }`
    fn runs(&mut self) -> Parsed<Vec<(u64, u64)>> {
        self.expect("{")?;
        let mut runs: Vec<(u64, u64)> = Vec::new();
        loop {
            let before = (self.text, self.line);
            let token = self.token();
            if token == "}" {
                return Ok(runs);
            }
            let (times, value) = if token.starts_with("0x") {
                (self.text, self.line) = before;
                (1, self.hex(16)?)
            } else {
                (self.text, self.line) = before;
                let times = self.number()?;
                self.expect("times")?;
                (times, self.hex(16)?)
            };
            self.expect(";")?;
            match runs.last_mut() {
                Some((n, v)) if *v == value => *n = n.saturating_add(times),
                _ => runs.push((times, value)),
            }
        }
    }
}
