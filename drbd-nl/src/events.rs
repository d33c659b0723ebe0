//! What DRBD announces: the raw stream of events.
//!
//! A reader that wants a consistent picture takes a
//! [`Watcher`](crate::Watcher); this is the layer below it.

use crate::client::{Drbd, Family, read_family};
use crate::dialect::decode::Message;
use crate::dialect::request::Request;
use crate::error::{Cause, Error, ErrorKind, Result};
use crate::model::{
    AddressPair, ConnectionInfo, ConnectionStatistics, DeviceInfo, DeviceStatistics, DiskFlags,
    Minor, NodeId, PeerDeviceInfo, PeerDeviceStatistics, ResourceInfo, ResourceName,
    ResourceStatistics, Sectors, Text, Uuid, VolumeNumber,
};
use crate::schema::{self, cmd, ctrl};
use crate::socket::{Connector, Deadline, Kernel, Received, Transport};
use crate::wire::{Attrs, Control, GenlHeader, Messages, Native, NlMsg, WireError};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Action {
    /// It is there: part of the initial state.
    Exists,
    /// It was made.
    Create,
    /// It changed.
    Change,
    /// It is gone.
    Destroy,
    /// A helper program is called.
    Call,
    /// A helper program ended.
    Response,
    /// It has a new name (9).
    Rename,
    /// A number this version has no name for.
    Other(u32),
}

impl From<u32> for Action {
    fn from(number: u32) -> Self {
        match number {
            0 => Self::Exists,
            1 => Self::Create,
            2 => Self::Change,
            3 => Self::Destroy,
            4 => Self::Call,
            5 => Self::Response,
            6 => Self::Rename,
            other => Self::Other(other),
        }
    }
}

/// One announcement.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Event {
    /// Sequence number: the kernel's counter for live events, the request's
    /// for the initial state.
    pub seq: u32,
    /// What happened.
    pub action: Action,
    /// More events of the same change follow.
    pub continues: bool,
    /// To what.
    pub kind: EventKind,
}

/// What an event is about. Information is absent when the object is gone.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the fields are those of the objects in `model`"
)]
#[allow(
    clippy::large_enum_variant,
    reason = "the counters of a resync come often, and are not to cost an allocation"
)]
pub enum EventKind {
    /// A resource.
    Resource {
        resource: ResourceName,
        info: Option<ResourceInfo>,
        statistics: Option<ResourceStatistics>,
        /// With [`Action::Rename`]: what it is called from now on.
        new_name: Option<ResourceName>,
    },
    /// A volume on this node.
    Device {
        resource: ResourceName,
        volume: VolumeNumber,
        minor: Option<Minor>,
        info: Option<DeviceInfo>,
        statistics: Option<DeviceStatistics>,
    },
    /// A connection.
    Connection {
        resource: ResourceName,
        peer_node_id: Option<NodeId>,
        name: Option<Text>,
        addresses: Option<AddressPair>,
        info: Option<ConnectionInfo>,
        statistics: Option<ConnectionStatistics>,
    },
    /// A volume as seen over a connection.
    PeerDevice {
        resource: ResourceName,
        volume: VolumeNumber,
        peer_node_id: Option<NodeId>,
        info: Option<PeerDeviceInfo>,
        statistics: Option<PeerDeviceStatistics>,
    },
    /// A path of a connection (9).
    Path {
        resource: ResourceName,
        peer_node_id: Option<NodeId>,
        addresses: AddressPair,
        established: Option<bool>,
    },
    /// A helper program (`usermode_helper`).
    Helper(HelperEvent),
    /// The initial state is complete.
    InitialStateDone,
    /// 8.4's older kind of event, sent besides the others.
    Legacy(Box<LegacyEvent>),
    /// A command this version has no name for.
    Unknown { command: u8 },
}

impl EventKind {
    /// The resource it is about, if it is about one; before its renaming.
    #[must_use]
    pub fn resource(&self) -> Option<&ResourceName> {
        match self {
            Self::Resource { resource, .. }
            | Self::Device { resource, .. }
            | Self::Connection { resource, .. }
            | Self::PeerDevice { resource, .. }
            | Self::Path { resource, .. } => Some(resource),
            Self::Helper(helper) => helper.resource.as_ref(),
            Self::Legacy(legacy) => legacy.resource.as_ref(),
            Self::InitialStateDone | Self::Unknown { .. } => None,
        }
    }
}

/// DRBD found that both sides have written on their own since they parted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SplitBrain {
    /// The resource.
    pub resource: Option<ResourceName>,
    /// The device, if DRBD says.
    pub minor: Option<Minor>,
    /// The peer (9).
    pub peer_node_id: Option<NodeId>,
    /// The `after-sb-*` settings did not solve it, and the connection is
    /// dropped; otherwise they have not been tried yet.
    pub unsolved: bool,
}

/// A call of the helper program, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct HelperEvent {
    /// The resource.
    pub resource: Option<ResourceName>,
    /// The device, if it is about one.
    pub minor: Option<Minor>,
    /// Its volume, if it is about one.
    pub volume: Option<VolumeNumber>,
    /// The peer, if it is about one (9).
    pub peer_node_id: Option<NodeId>,
    /// What it is called for, such as `fence-peer`.
    pub name: Text,
    /// With [`Action::Response`]: its wait status, as from wait(2).
    pub status: Option<u32>,
}

impl HelperEvent {
    /// Whether DRBD calls because it found a split brain.
    #[must_use]
    pub fn split_brain(&self) -> Option<SplitBrain> {
        let unsolved = if self.name == "split-brain" {
            true
        } else if self.name == "initial-split-brain" {
            false
        } else {
            return None;
        };
        // Once, when it is called.
        self.status.is_none().then(|| SplitBrain {
            resource: self.resource.clone(),
            minor: self.minor,
            peer_node_id: self.peer_node_id,
            unsolved,
        })
    }

    /// The exit code of the helper, if it ended by exiting.
    #[must_use]
    pub fn exit_code(&self) -> Option<u32> {
        self.status
            .filter(|status| status & 0x7f == 0)
            .map(|status| (status >> 8) & 0xff)
    }
}

/// 8.4's `DRBD_EVENT`: kept so that nothing is dropped in silence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LegacyEvent {
    /// The resource.
    pub resource: Option<ResourceName>,
    /// The device.
    pub minor: Option<Minor>,
    /// `sib_reason`: 1 status, 2 state change, 3 helper called, 4 helper
    /// ended, 5 sync progress.
    pub reason: u32,
    /// The packed state (`union drbd_state`).
    pub state: Option<u32>,
    /// The packed state before.
    pub previous_state: Option<u32>,
    /// The packed state after.
    pub new_state: Option<u32>,
    /// Size.
    pub capacity: Option<Sectors>,
    /// Generation the application sees.
    pub exposed_data_uuid: Option<Uuid>,
    /// Current and bitmap generation, two of history (with a disk); 0 for none.
    pub uuids: Vec<u64>,
    /// Flags of the metadata (with a disk).
    pub disk_flags: Option<DiskFlags>,
    /// All there is, in sectors (with a disk).
    pub total: Option<Sectors>,
    /// What differs from the peer (with a disk).
    pub out_of_sync: Option<Sectors>,
    /// What there was to resync (with a disk).
    pub resync_total: Option<Sectors>,
    /// What failed to resync (with a disk).
    pub resync_failed: Option<Sectors>,
    /// With reason 3 and 4: the helper.
    pub helper: Option<Text>,
    /// With reason 4: its wait status.
    pub helper_status: Option<u32>,
    /// `send_cnt`, `recv_cnt`, `read_cnt`, `writ_cnt`, `al_writ_cnt`,
    /// `bm_writ_cnt`, `ap_bio_cnt`, `ap_pending_cnt`, `rs_pending_cnt`, as
    /// far as the kernel sends them.
    pub counters: [Option<u64>; 9],
}

/// What comes out of [`RawEvents`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant, reason = "as for `EventKind`")]
pub enum RawEvent {
    /// An event.
    Event(Event),
    /// The receive buffer overflowed: at least one event is lost. The
    /// stream goes on. Until everything is read that is waiting (until
    /// [`RawEvents::try_next`] gives `None`) the kernel loses more without
    /// saying so; then ask for the state again.
    Overrun,
    /// The module was unloaded. The stream goes on when it is loaded again.
    ModuleUnloaded,
    /// The module was loaded again: the family has another id. The stream
    /// has joined its events; read the state.
    ModuleLoaded,
}

/// The stream of events, nothing interpreted.
///
/// The group is joined before the initial state is asked for, so no change
/// falls between the two. The initial state comes first, as
/// [`Action::Exists`] events ended by [`EventKind::InitialStateDone`]; live
/// events may come between them, and may repeat what it says.
///
/// Wait for it with `AsFd` and poll, or with [`RawEvents::next_event`].
#[derive(Debug)]
#[must_use = "dropping this leaves the event group"]
pub struct RawEvents<T: Transport = <Kernel as Connector>::Transport> {
    transport: T,
    family: Family,
    request: u32,
    /// The last datagram, and where its next message begins.
    buffer: Vec<u8>,
    at: usize,
    filter: Filter,
}

/// Which resources one wants to hear of; follows their renaming.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter(Option<BTreeSet<ResourceName>>);

impl Filter {
    pub(crate) fn only(names: impl IntoIterator<Item = ResourceName>) -> Self {
        Self(Some(names.into_iter().collect()))
    }

    /// Whether an event is about one of them, or about none.
    pub(crate) fn passes(&mut self, event: &Event) -> bool {
        let Some(names) = &mut self.0 else {
            return true;
        };
        let passes = event
            .kind
            .resource()
            .is_none_or(|name| names.contains(name));
        if let EventKind::Resource {
            resource,
            new_name: Some(new_name),
            ..
        } = &event.kind
            && passes
        {
            names.remove(resource);
            names.insert(new_name.clone());
        }
        passes
    }
}

/// What a socket of events gives, dumps included.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "as for `EventKind`")]
pub(crate) enum Item {
    Event(RawEvent),
    /// The dump asked for with this sequence number has ended.
    DumpDone(u32),
}

const OP: &str = "events";

impl<T: Transport> RawEvents<T> {
    pub(crate) fn open<C: Connector<Transport = T>>(drbd: &Drbd<C>) -> Result<Self> {
        let mut events = Self::join(drbd)?;
        events.request_state()?;
        Ok(events)
    }

    /// Joins the group without asking for the initial state.
    pub(crate) fn join<C: Connector<Transport = T>>(drbd: &Drbd<C>) -> Result<Self> {
        let family = drbd.family().clone();
        // The announcements of generic netlink itself tell of a module that is
        // unloaded. Join both before asking for anything.
        let groups = [u32::from(ctrl::GENL_ID_CTRL), family.events_group()];
        let mut transport = drbd.connect_member(OP, &groups)?;
        transport.set_receive_buffer(RECEIVE_BUFFER);
        Ok(Self {
            transport,
            family,
            request: 1,
            buffer: Vec::new(),
            at: 0,
            filter: Filter::default(),
        })
    }

    /// Asks the kernel for the whole state again; it comes as
    /// [`Action::Exists`] events.
    ///
    /// # Errors
    /// When the request cannot be sent. While the dump asked for before is
    /// under way, the kernel answers with `EBUSY`, which comes out of
    /// [`RawEvents::next_event`].
    pub fn request_state(&mut self) -> Result<()> {
        self.request = self.request.wrapping_add(1).max(2);
        let request = Request::<Native>::dump(self.family.dialect, cmd::GET_INITIAL_STATE);
        let bytes = request
            .bytes(self.family.id, self.request, self.transport.port())
            .map_err(|error| Error::new(OP, "", Cause::Malformed(error)))?;
        self.transport.send(&bytes).map_err(|source| {
            Error::new(
                OP,
                "",
                Cause::System {
                    call: "send",
                    source,
                },
            )
        })
    }

    /// Asks for a receive buffer of this many bytes instead of 1 MiB. The
    /// kernel gives no more than `net.core.rmem_max` to who lacks
    /// CAP_NET_ADMIN. A larger one overflows later.
    pub fn set_receive_buffer(&mut self, bytes: usize) {
        self.transport.set_receive_buffer(bytes);
    }

    /// Only events about these resources from now on (and those about none).
    /// A resource that is renamed is still the one that was asked for.
    pub fn only(mut self, names: impl IntoIterator<Item = ResourceName>) -> Self {
        self.filter = Filter::only(names);
        self
    }

    /// The next event if there is one now; does not block. For poll loops
    /// over `AsFd`: call it until it gives `None`.
    ///
    /// # Errors
    /// As [`RawEvents::next_event`].
    pub fn try_next(&mut self) -> Result<Option<RawEvent>> {
        self.next_event(Duration::ZERO)
    }

    /// The next event; `None` when there was none before the timeout.
    ///
    /// # Errors
    /// When the socket fails or the kernel sends what makes no sense. The
    /// stream stays usable after [`ErrorKind::Malformed`](crate::ErrorKind).
    pub fn next_event(&mut self, timeout: Duration) -> Result<Option<RawEvent>> {
        self.next_before(Deadline::after(timeout))
    }

    pub(crate) fn family(&self) -> &Family {
        &self.family
    }

    /// Sequence number of the last request.
    pub(crate) fn request(&self) -> u32 {
        self.request
    }

    pub(crate) fn next_before(&mut self, deadline: Deadline) -> Result<Option<RawEvent>> {
        let mut others = 0;
        loop {
            match self.next_item(deadline)? {
                Some(Item::Event(RawEvent::Event(event))) if !self.filter.passes(&event) => {
                    // However much others have to say, the time is over some day.
                    others += 1;
                    if others > OTHERS && deadline.passed() {
                        return Ok(None);
                    }
                }
                Some(Item::Event(event)) => return Ok(Some(event)),
                Some(Item::DumpDone(_)) => {}
                None => return Ok(None),
            }
        }
    }

    pub(crate) fn next_item(&mut self, deadline: Deadline) -> Result<Option<Item>> {
        let mut strangers = 0;
        loop {
            let mut messages = Messages::<Native>::resume(&self.buffer, self.at);
            while let Some(msg) = messages.next() {
                self.at = messages.at();
                let msg = msg.map_err(wire)?;
                if msg.kind == self.family.id {
                    // Straight into its place: an event is large, and moving it is not free.
                    return match Message::<Native>::read(self.family.dialect, &msg)
                        .and_then(|message| message.event())
                    {
                        Ok(event) => Ok(Some(Item::Event(RawEvent::Event(event)))),
                        Err(error) => Err(wire(error)),
                    };
                }
                return Ok(Some(match other(&self.family, &msg)? {
                    Other::Nothing => continue,
                    Other::DumpDone => Item::DumpDone(msg.seq),
                    Other::Overrun => Item::Event(RawEvent::Overrun),
                    Other::ModuleUnloaded => Item::Event(RawEvent::ModuleUnloaded),
                    Other::Family(family) => {
                        self.family_is_back(family)?;
                        Item::Event(RawEvent::ModuleLoaded)
                    }
                }));
            }
            self.buffer.clear();
            self.at = 0;
            let received =
                self.transport
                    .receive(&mut self.buffer, deadline)
                    .map_err(|source| {
                        Error::new(
                            OP,
                            "",
                            Cause::System {
                                call: "receive",
                                source,
                            },
                        )
                    })?;
            match received {
                Received::TimedOut => return Ok(None),
                Received::Overrun => return Ok(Some(Item::Event(RawEvent::Overrun))),
                Received::Datagram(datagram) => {
                    // Other processes can send to our port; only the kernel has port 0.
                    if datagram.sender != 0 {
                        self.buffer.clear();
                        strangers += 1;
                        if strangers > STRANGERS && deadline.passed() {
                            return Ok(None);
                        }
                        continue;
                    }
                    if datagram.truncated {
                        self.buffer.clear();
                        return Err(malformed("datagram: truncated"));
                    }
                }
            }
        }
    }

    /// The module came back: its family has another id, perhaps another
    /// version, and its group must be joined anew.
    fn family_is_back(&mut self, family: Family) -> Result<()> {
        self.family = family;
        let group = self.family.events_group();
        self.transport.join(group).map_err(|source| {
            let call = "join group of events";
            Error::new(OP, "", Cause::System { call, source })
        })
    }
}

fn wire(error: WireError) -> Error {
    Error::new(OP, "", Cause::Malformed(error))
}

/// What a message means that is not of DRBD's family.
enum Other {
    Nothing,
    DumpDone,
    Overrun,
    ModuleUnloaded,
    /// DRBD's family, registered again.
    Family(Family),
}

fn other(family: &Family, msg: &NlMsg<'_>) -> Result<Other> {
    if msg.kind == ctrl::GENL_ID_CTRL {
        return announced(family, msg);
    }
    Ok(match msg.control::<Native>().map_err(wire)? {
        Some(Control::Done(_)) => Other::DumpDone,
        // The dump found the buffer full; it goes on when there is room.
        Some(Control::Error(code, _)) if code.wrapping_neg() == libc::ENOBUFS => Other::Overrun,
        Some(Control::Error(code, extack)) if code != 0 => {
            let source = std::io::Error::from_raw_os_error(code.wrapping_neg());
            let extack = extack.map(|text| Text::from_bytes(&text));
            return Err(Error::new(OP, "", Cause::Netlink { source, extack }));
        }
        _ => Other::Nothing,
    })
}

/// What generic netlink itself announces of its families.
fn announced(family: &Family, msg: &NlMsg<'_>) -> Result<Other> {
    let genl = GenlHeader::read(msg.body).map_err(wire)?;
    let attr = |number| Attrs::<Native>::new(genl.body).find(number).map_err(wire);
    match genl.command {
        ctrl::CTRL_CMD_DELFAMILY => {
            let id = attr(ctrl::CTRL_ATTR_FAMILY_ID)?;
            if id.is_some_and(|id| id.payload == family.id.to_ne_bytes()) {
                return Ok(Other::ModuleUnloaded);
            }
        }
        ctrl::CTRL_CMD_NEWFAMILY => {
            let name = attr(ctrl::CTRL_ATTR_FAMILY_NAME)?;
            if name.is_some_and(|name| name.string() == schema::FAMILY.as_bytes()) {
                return read_family(genl.body)
                    .map_err(wire)?
                    .map(Other::Family)
                    .map_err(|text| Error::local(OP, "", ErrorKind::Unsupported, text));
            }
        }
        _ => {}
    }
    Ok(Other::Nothing)
}

/// Waits for the next event without limit. An error does not end it; after
/// [`RawEvent::ModuleUnloaded`] it waits until the module is loaded again.
impl<T: Transport> Iterator for RawEvents<T> {
    type Item = Result<RawEvent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_event(Duration::from_secs(3600)) {
                Ok(Some(event)) => return Some(Ok(event)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl<T: Transport + AsFd> AsFd for RawEvents<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.as_fd()
    }
}

/// Events that the filter drops after the deadline: more than fit into a
/// receive buffer of usual size.
const OTHERS: usize = 100_000;

/// Datagrams of other processes that are skipped after the deadline.
const STRANGERS: usize = 64;

/// What drbdsetup asks for as well.
const RECEIVE_BUFFER: usize = 1 << 20;

fn malformed(what: &'static str) -> Error {
    Error::new(OP, "", Cause::Malformed(WireError { what, at: 0 }))
}
