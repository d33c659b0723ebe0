//! A model that follows the events: [`Watcher`].

use crate::client::{Drbd, Family};
use crate::error::{Error, ErrorKind, Result};
use crate::events::{
    Action, Event, EventKind, Filter, HelperEvent, Item, RawEvent, RawEvents, SplitBrain,
};
use crate::model::{
    AddressPair, Connection, Device, NodeId, Path, PeerDevice, Resource, ResourceInfo,
    ResourceName, ResourceStatistics, State, VolumeNumber, make_room, set,
};
use crate::socket::{Connector, Deadline, Kernel, Transport};
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// An object of the model, by its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the fields are the keys of the objects in `model`"
)]
pub enum ObjectKey {
    /// A resource.
    Resource { resource: ResourceName },
    /// A volume on this node.
    Device {
        resource: ResourceName,
        volume: VolumeNumber,
    },
    /// A connection; 8.4 has no node ids, and one connection a resource.
    Connection {
        resource: ResourceName,
        peer_node_id: Option<NodeId>,
    },
    /// A volume as seen over a connection.
    PeerDevice {
        resource: ResourceName,
        peer_node_id: Option<NodeId>,
        volume: VolumeNumber,
    },
    /// A path of a connection.
    Path {
        resource: ResourceName,
        peer_node_id: Option<NodeId>,
        addresses: AddressPair,
    },
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = |f: &mut fmt::Formatter<'_>, id: &Option<NodeId>| match id {
            Some(id) => write!(f, " peer-node-id {id}"),
            None => Ok(()),
        };
        match self {
            Self::Resource { resource } => write!(f, "resource {resource}"),
            Self::Device { resource, volume } => write!(f, "device {resource}/{volume}"),
            Self::Connection {
                resource,
                peer_node_id,
            } => {
                write!(f, "connection {resource}")?;
                peer(f, peer_node_id)
            }
            Self::PeerDevice {
                resource,
                peer_node_id,
                volume,
            } => {
                write!(f, "peer-device {resource}/{volume}")?;
                peer(f, peer_node_id)
            }
            Self::Path {
                resource,
                peer_node_id,
                addresses,
            } => {
                write!(f, "path {resource}")?;
                peer(f, peer_node_id)?;
                write!(f, " {addresses}")
            }
        }
    }
}

/// A difference between two states of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Change {
    /// Which object.
    pub object: ObjectKey,
    /// [`Action::Create`], [`Action::Change`], [`Action::Destroy`] or
    /// [`Action::Rename`].
    pub action: Action,
}

/// What [`Watcher::next_update`] came upon.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Update {
    /// One change, whole; the model has it. Empty when it repeated what the
    /// model had already.
    Changed(Vec<Change>),
    /// Events were lost or late, so the state was read again: the model is
    /// right, and this is how it differs from before.
    Resynced(Vec<Change>),
    /// A helper program was called or ended.
    Helper(HelperEvent),
    /// DRBD found a split brain (it also calls a helper, so this follows an
    /// [`Update::Helper`]).
    SplitBrain(SplitBrain),
    /// The module was unloaded: the model is empty. The watcher goes on when
    /// it is loaded again.
    ModuleUnloaded(Vec<Change>),
    /// The module was loaded again, and the state was read.
    ModuleLoaded(Vec<Change>),
}

/// A model of everything DRBD has, kept current by its events.
///
/// Opening joins the event group, then asks for the state, then merges what
/// was announced meanwhile, so nothing falls in between. Events are applied
/// in the order of their sequence numbers: one that comes early waits up to
/// [`Watcher::PATIENCE`] for those before it. When they do not come, or when
/// the socket overflowed, the state is read again and the differences come
/// as [`Update::Resynced`]. A change that takes several events is applied
/// when it is complete.
///
/// Events carry no settings, so `options` are `None` here; counters are as
/// of the last event of their object ([`Watcher::refresh`] reads them again).
/// Reading the state may wait while the kernel carries out another DRBD
/// request.
#[derive(Debug)]
#[must_use = "dropping this ends the watching"]
pub struct Watcher<T: Transport = <Kernel as Connector>::Transport> {
    events: RawEvents<T>,
    state: State,
    /// The next sequence number; unknown before the first live event.
    expected: Option<u32>,
    /// Live events that came early or during a dump.
    early: Vec<Event>,
    /// When those before the early ones are given up on.
    give_up: Option<Deadline>,
    /// Events of a change that is not complete.
    group: Vec<Event>,
    ready: VecDeque<Update>,
    patience: Duration,
    /// The model may be behind: events were lost and not read again yet.
    stale: bool,
    /// The module is not there.
    unloaded: bool,
    filter: Filter,
}

const OP: &str = "watch";

impl<T: Transport> Watcher<T> {
    /// How long an event that came early waits for those before it.
    pub const PATIENCE: Duration = Duration::from_millis(500);
    /// How long the state may take to come.
    const DUMP_LIMIT: Duration = Duration::from_secs(60);

    pub(crate) fn open<C: Connector<Transport = T>>(
        drbd: &Drbd<C>,
        filter: Filter,
    ) -> Result<Self> {
        let mut watcher = Self {
            events: RawEvents::join(drbd)?,
            state: State::empty(),
            expected: None,
            early: Vec::new(),
            give_up: None,
            group: Vec::new(),
            ready: VecDeque::new(),
            patience: Self::PATIENCE,
            stale: false,
            unloaded: false,
            filter,
        };
        watcher.state = watcher.read_state(false, Deadline::after(Self::DUMP_LIMIT))?;
        watcher.apply_early();
        watcher.ready.clear();
        Ok(watcher)
    }

    /// How long an event that came early waits for those before it, instead
    /// of [`Watcher::PATIENCE`].
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// As [`RawEvents::set_receive_buffer`].
    pub fn set_receive_buffer(&mut self, bytes: usize) {
        self.events.set_receive_buffer(bytes);
    }

    /// The family it watches.
    #[must_use]
    pub fn family(&self) -> &Family {
        self.events.family()
    }

    /// The model as of the last update.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The next update; `None` when there was none before the timeout.
    ///
    /// When the state has to be read again it may take a second more.
    ///
    /// # Errors
    /// [`ErrorKind::Os`], [`ErrorKind::Malformed`], [`ErrorKind::Timeout`]
    /// when the state could not be read; it is read again by the next call.
    pub fn next_update(&mut self, timeout: Duration) -> Result<Option<Update>> {
        let deadline = Deadline::after(timeout);
        loop {
            if let Some(update) = self.ready.pop_front() {
                return Ok(Some(update));
            }
            if self.stale && !self.unloaded {
                let read = self.resync(timeout);
                self.unless_unloaded(read)?;
                continue;
            }
            // With an early event in hand, only so long for those before it.
            let until = self
                .give_up
                .map_or(deadline, |give_up| give_up.or_after(deadline.left()));
            match self.events.next_before(until) {
                Ok(Some(RawEvent::Event(event))) => self.live(event),
                Ok(Some(RawEvent::Overrun)) => self.stale = true,
                Ok(Some(RawEvent::ModuleUnloaded)) => self.module_unloaded(),
                Ok(Some(RawEvent::ModuleLoaded)) => {
                    self.unloaded = false;
                    let read = self.reread(Self::DUMP_LIMIT).map(|before| {
                        let changes = difference(&before, &self.state);
                        self.ready.push_back(Update::ModuleLoaded(changes));
                    });
                    self.unless_unloaded(read)?;
                }
                Ok(None) if self.give_up.is_some_and(|g| g.passed()) => self.stale = true,
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.stale = true;
                    return Err(error);
                }
            }
        }
    }

    /// A state that could not be read because the module went is told as an
    /// update, as it is at any other time.
    fn unless_unloaded(&self, read: Result<()>) -> Result<()> {
        if self.unloaded { Ok(()) } else { read }
    }

    /// The next update if there is one now. For poll loops over `AsFd`: call
    /// it until it gives `None`, and again when the descriptor is readable or
    /// [`Watcher::wakeup`] is over.
    ///
    /// It does not wait for events; when some were lost it reads the state
    /// again, which the kernel gives as fast as it is read.
    ///
    /// # Errors
    /// As [`Watcher::next_update`].
    pub fn try_update(&mut self) -> Result<Option<Update>> {
        self.next_update(Duration::ZERO)
    }

    /// After which time [`Watcher::try_update`] has something to do even if
    /// nothing comes: an event that came early does not wait for ever.
    #[must_use]
    pub fn wakeup(&self) -> Option<Duration> {
        self.give_up.map(|give_up| give_up.left())
    }

    /// Reads the state again, with current counters; the differences.
    ///
    /// # Errors
    /// As [`Watcher::next_update`].
    pub fn refresh(&mut self) -> Result<Vec<Change>> {
        if self.unloaded {
            return Err(module_not_loaded());
        }
        let before = self.reread(Self::DUMP_LIMIT)?;
        Ok(difference(&before, &self.state))
    }

    /// Waits until the model is as wanted; looks at it as soon as it has
    /// taken in what was announced so far, and then after every update.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when it did not come to that within `timeout`;
    /// [`ErrorKind::ModuleNotLoaded`] when the module is gone; otherwise as
    /// [`Watcher::next_update`].
    pub fn wait_for(
        &mut self,
        timeout: Duration,
        mut wanted: impl FnMut(&State) -> bool,
    ) -> Result<()> {
        let deadline = Deadline::after(timeout);
        // What was announced so far counts: who has just changed something
        // does not want to be told how it was before.
        while self.try_update()?.is_some() && !deadline.passed() {}
        loop {
            if self.unloaded {
                return Err(module_not_loaded());
            }
            if !self.stale && wanted(&self.state) {
                return Ok(());
            }
            // Updates that do not help must not keep it busy for ever.
            let late = deadline.passed();
            if self.next_update(deadline.left())?.is_none() && deadline.passed() || late {
                return Err(Error::local(
                    OP,
                    "",
                    ErrorKind::Timeout,
                    format!("the awaited state did not come within {timeout:?}"),
                ));
            }
        }
    }

    /// Waits until every connection of a resource is up: drbdadm's
    /// `wait-connect`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such resource now; otherwise
    /// as [`Watcher::wait_for`].
    pub fn wait_connect(&mut self, resource: &ResourceName, timeout: Duration) -> Result<()> {
        self.wait_resource("wait-connect", resource, timeout, Resource::is_connected)
    }

    /// Waits until every volume of a resource is current here and at every
    /// peer that is to have a copy: drbdadm's `wait-sync`.
    ///
    /// # Errors
    /// As [`Watcher::wait_connect`].
    pub fn wait_sync(&mut self, resource: &ResourceName, timeout: Duration) -> Result<()> {
        self.wait_resource("wait-sync", resource, timeout, Resource::is_in_sync)
    }

    /// Waits until no connection of a resource is up.
    ///
    /// # Errors
    /// As [`Watcher::wait_connect`].
    pub fn wait_disconnect(&mut self, resource: &ResourceName, timeout: Duration) -> Result<()> {
        self.wait_resource("wait-disconnect", resource, timeout, |resource| {
            !resource.connections.iter().any(Connection::is_connected)
        })
    }

    fn wait_resource(
        &mut self,
        op: &'static str,
        name: &ResourceName,
        timeout: Duration,
        wanted: impl Fn(&Resource) -> bool,
    ) -> Result<()> {
        let error = |kind, text: String| Error::local(op, name.to_string(), kind, text);
        if self.state.by_name(name).is_none() {
            let text = "there is no such resource".to_owned();
            return Err(error(ErrorKind::NotFound, text));
        }
        let waited = self.wait_for(timeout, |state| state.by_name(name).is_some_and(&wanted));
        waited.map_err(|e| match e.kind() {
            ErrorKind::Timeout => error(
                ErrorKind::Timeout,
                format!("it did not come to that within {timeout:?}"),
            ),
            _ => e,
        })
    }

    /// One live event: in order, early, or late.
    fn live(&mut self, event: Event) {
        // The rest of a dump that was given up; and 8.4's older events, which
        // have a counter of their own, no action, and nothing new to say.
        if event.action == Action::Exists {
            return;
        }
        let expected = *self.expected.get_or_insert(event.seq);
        if event.seq == expected {
            self.expected = Some(event.seq.wrapping_add(1));
            self.apply(event);
            self.apply_early();
        } else if before(event.seq, expected) {
            // Later than what was taken for its successors: the model may be wrong.
            self.stale = true;
        } else {
            self.early.push(event);
            self.give_up
                .get_or_insert_with(|| Deadline::after(self.patience));
        }
    }

    /// Applies the early events whose turn has come.
    fn apply_early(&mut self) {
        while let Some(expected) = self.expected {
            self.early.retain(|event| !before(event.seq, expected));
            let Some(at) = self.early.iter().position(|event| event.seq == expected) else {
                break;
            };
            let event = self.early.swap_remove(at);
            self.expected = Some(expected.wrapping_add(1));
            self.apply(event);
        }
        self.give_up = (!self.early.is_empty()).then(|| {
            self.give_up
                .unwrap_or_else(|| Deadline::after(self.patience))
        });
    }

    fn apply(&mut self, event: Event) {
        let passes = self.filter.passes(&event);
        let continues = event.continues;
        if let EventKind::Helper(helper) = event.kind {
            if passes {
                let split_brain = helper.split_brain();
                self.ready.push_back(Update::Helper(helper));
                self.ready.extend(split_brain.map(Update::SplitBrain));
            }
            return;
        }
        if passes {
            self.group.push(event);
        }
        if !continues {
            let mut changes = Vec::new();
            for event in std::mem::take(&mut self.group) {
                // Something about an object whose owner the model lacks.
                self.stale |= !merge(&mut self.state, event, &mut changes);
            }
            if !changes.is_empty() {
                self.ready.push_back(Update::Changed(changes));
            }
        }
    }

    /// Reads the state in about the time that the caller has.
    fn resync(&mut self, timeout: Duration) -> Result<()> {
        let before = self.reread(timeout.clamp(Duration::from_secs(1), Self::DUMP_LIMIT))?;
        self.ready
            .push_back(Update::Resynced(difference(&before, &self.state)));
        Ok(())
    }

    /// Reads the state again; what was waiting is in it, or comes after it.
    /// Returns how it was before.
    fn reread(&mut self, limit: Duration) -> Result<State> {
        let lost = std::mem::replace(&mut self.stale, true);
        self.group.clear();
        self.forget_early();
        self.expected = None;
        let state = self.read_state(lost, Deadline::after(limit))?;
        let before = std::mem::replace(&mut self.state, state);
        let kept = self.ready.len();
        self.apply_early();
        // What came during the dump is part of what the dump is for.
        let later = self.ready.split_off(kept);
        self.ready.extend(
            later
                .into_iter()
                .filter(|update| matches!(update, Update::Helper(_) | Update::SplitBrain(_))),
        );
        self.stale = false;
        Ok(before)
    }

    /// Events whose change will be read instead. Helpers are in no state.
    fn forget_early(&mut self) {
        let mut early = std::mem::take(&mut self.early);
        early.retain(|event| matches!(event.kind, EventKind::Helper(_)));
        if let Some(some) = early.first().map(|event| event.seq) {
            early.sort_by_key(|event| event.seq.wrapping_sub(some).cast_signed());
        }
        early.into_iter().for_each(|event| self.apply(event));
    }

    /// Reads everything that is waiting: from before a loss, so of no use for
    /// what comes after it. Until nothing is left the kernel drops what it
    /// announces, and says so only once; and a dump finds no room.
    fn drain(&mut self, deadline: Deadline) -> Result<()> {
        while let Some(item) = self.events.next_item(Deadline::PASSED)? {
            match item {
                Item::Event(RawEvent::Event(event)) => {
                    if matches!(event.kind, EventKind::Helper(_)) {
                        self.apply(event);
                    }
                }
                Item::Event(RawEvent::ModuleUnloaded) => {
                    self.module_unloaded();
                    return Err(module_not_loaded());
                }
                _ => {}
            }
            if deadline.passed() {
                break;
            }
        }
        Ok(())
    }

    /// Asks for the state and collects it; live events are kept for later.
    /// When announcements were lost, what is left of them is read before.
    fn read_state(&mut self, mut lost: bool, deadline: Deadline) -> Result<State> {
        let mut first = true;
        loop {
            if !std::mem::take(&mut first) && deadline.passed() {
                let text = "the state did not come to rest";
                return Err(Error::local(OP, "", ErrorKind::Timeout, text));
            }
            if lost {
                self.drain(deadline)?;
            }
            self.events.request_state()?;
            let request = self.events.request();
            let mut state = Reading::default();
            let (mut complete, mut again) = (false, false);
            loop {
                let item = match self.events.next_item(deadline) {
                    // A dump that was given up is still under way on this
                    // socket: read it to its end, then ask again.
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        again = true;
                        continue;
                    }
                    item => item?,
                };
                match item {
                    None => {
                        let text = "the state did not come";
                        return Err(Error::local(OP, "", ErrorKind::Timeout, text));
                    }
                    // An announcement is lost (the dump itself waits for
                    // room): read this dump to its end, then ask again.
                    Some(Item::Event(RawEvent::Overrun)) => again = true,
                    Some(Item::Event(RawEvent::ModuleUnloaded)) => {
                        self.module_unloaded();
                        return Err(module_not_loaded());
                    }
                    Some(Item::Event(RawEvent::ModuleLoaded)) => again = true,
                    Some(Item::DumpDone(seq)) if seq == request || again => break,
                    Some(Item::DumpDone(_)) => {}
                    Some(Item::Event(RawEvent::Event(event))) => {
                        match (&event.kind, event.action) {
                            (EventKind::InitialStateDone, _) => complete |= event.seq == request,
                            (_, Action::Exists) => {
                                if event.seq == request && self.filter.passes(&event) {
                                    state.take(event);
                                }
                            }
                            _ => self.early.push(event),
                        }
                    }
                }
            }
            if again || !complete {
                self.forget_early();
                lost = true;
                continue;
            }
            // The first of those that came meanwhile is where to go on.
            self.expected = self
                .early
                .iter()
                .map(|event| event.seq)
                .reduce(|a, b| if before(b, a) { b } else { a });
            self.give_up = None;
            return Ok(state.finish());
        }
    }

    fn module_unloaded(&mut self) {
        let before = std::mem::replace(&mut self.state, State::empty());
        self.early.clear();
        self.group.clear();
        (self.give_up, self.expected) = (None, None);
        (self.unloaded, self.stale) = (true, true);
        self.ready
            .push_back(Update::ModuleUnloaded(difference(&before, &self.state)));
    }
}

fn module_not_loaded() -> Error {
    Error::local(
        OP,
        "",
        ErrorKind::ModuleNotLoaded,
        "the DRBD kernel module was unloaded",
    )
}

/// Waits for the next update without limit. An error does not end it.
impl<T: Transport> Iterator for Watcher<T> {
    type Item = Result<Update>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_update(Duration::from_secs(3600)) {
                Ok(Some(update)) => return Some(Ok(update)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl<T: Transport + AsFd> AsFd for Watcher<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// A state on its way from the kernel, which tells of one resource after the
/// other, each with all that belongs to it, in an order of its own.
#[derive(Debug, Default)]
struct Reading(Vec<Resource>);

impl Reading {
    fn take(&mut self, event: Event) {
        let Some(name) = event.kind.resource() else {
            return;
        };
        let last = self.0.len().wrapping_sub(1);
        let here = self.0.get(last).is_some_and(|r| r.name == *name);
        match event.kind {
            EventKind::Resource {
                resource,
                info,
                statistics,
                ..
            } => {
                let mut made = Resource::new(resource);
                update(&mut made, info, statistics);
                self.0.push(made);
            }
            kind => {
                let at = if here {
                    Some(last)
                } else {
                    self.0
                        .iter()
                        .rposition(|r| Some(&r.name) == kind.resource())
                };
                if let Some(owner) = at.and_then(|at| self.0.get_mut(at)) {
                    merge_part(owner, kind, false, None);
                }
            }
        }
    }

    fn finish(self) -> State {
        let mut state = State {
            resources: self.0,
            ..State::empty()
        };
        state.sort();
        // No kernel tells of one twice.
        state.resources.dedup_by(|a, b| a.name == b.name);
        state
    }
}

/// Whether `a` comes before `b` on a counter that wraps.
fn before(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 1 << 31
}

impl State {
    /// Brings one event into the model: what [`Watcher`] does with the
    /// events it reads. The differences; empty when the event repeats what
    /// the model has, or is about something whose owner it lacks.
    ///
    /// The objects have to be in their order, as they are in every state
    /// that comes from this crate.
    pub fn apply(&mut self, event: Event) -> Vec<Change> {
        let mut changes = Vec::new();
        merge(self, event, &mut changes);
        changes
    }
}

/// Brings one event into the model, which is in order and stays so; false
/// when what the object belongs to is not there. A change repeated, or the end
/// of an object that is gone, does nothing.
fn merge(state: &mut State, event: Event, changes: &mut Vec<Change>) -> bool {
    let destroy = event.action == Action::Destroy;
    let EventKind::Resource {
        resource,
        info,
        statistics,
        new_name,
    } = event.kind
    else {
        let owner = event.kind.resource().map(|name| state.by_name_mut(name));
        return match owner {
            Some(Some(owner)) => merge_part(owner, event.kind, destroy, Some(changes)),
            // Helpers and the older events are about what the others tell of.
            Some(None) => {
                destroy || matches!(event.kind, EventKind::Helper(_) | EventKind::Legacy(_))
            }
            None => true,
        };
    };
    let at = state.resources.binary_search_by(|r| r.name.cmp(&resource));
    let action = match (at, destroy, new_name) {
        (Ok(at), true, _) => {
            state.resources.remove(at);
            Action::Destroy
        }
        (Ok(at), false, Some(new_name)) => {
            state.resources[at].name = new_name;
            state.sort();
            Action::Rename
        }
        (Err(_), true, _) | (Err(_), false, Some(_)) => return true,
        (Ok(at), false, None) => {
            if !update(&mut state.resources[at], info, statistics) {
                return true;
            }
            Action::Change
        }
        (Err(at), false, None) => {
            let mut made = Resource::new(resource.clone());
            update(&mut made, info, statistics);
            state.resources.insert(at, made);
            Action::Create
        }
    };
    let object = ObjectKey::Resource { resource };
    changes.push(Change { object, action });
    true
}

/// What an event says of a resource itself; whether that makes a difference.
fn update(
    resource: &mut Resource,
    info: Option<ResourceInfo>,
    statistics: Option<ResourceStatistics>,
) -> bool {
    info.is_some_and(|info| resource.update(info))
        | statistics.is_some_and(|s| set(&mut resource.write_ordering, s.write_ordering))
}

/// Brings an event about something that belongs to a resource into it; false
/// when the connection is not there that it belongs to.
fn merge_part(
    owner: &mut Resource,
    kind: EventKind,
    destroy: bool,
    changes: Option<&mut Vec<Change>>,
) -> bool {
    let (object, action) = match kind {
        EventKind::Device {
            resource,
            volume,
            minor,
            info,
            statistics,
        } => {
            let key = || ObjectKey::Device { resource, volume };
            if destroy {
                let removed = remove(&mut owner.devices, |d| d.volume == volume);
                (removed.then(key), Action::Destroy)
            } else {
                let Some(minor) = minor else { return true };
                let (found, action) = entry(
                    &mut owner.devices,
                    |d| d.volume.cmp(&volume),
                    || Device::new(minor, volume),
                );
                let differs = set(&mut found.minor, minor)
                    | info.is_some_and(|info| found.update(info))
                    | statistics.is_some_and(|s| set(&mut found.statistics, s));
                ((differs || action == Action::Create).then(key), action)
            }
        }
        EventKind::Connection {
            resource,
            peer_node_id,
            name,
            addresses,
            info,
            statistics,
        } => {
            let key = || ObjectKey::Connection {
                resource,
                peer_node_id,
            };
            if destroy {
                let removed = remove(&mut owner.connections, |c| c.peer_node_id == peer_node_id);
                (removed.then(key), Action::Destroy)
            } else {
                // 8.4 lists the connection of a resource that is not configured
                // in the initial state, and nowhere else.
                if peer_node_id.is_none() && addresses.is_none() {
                    return true;
                }
                let (found, action) = entry(
                    &mut owner.connections,
                    |c| c.peer_node_id.cmp(&peer_node_id),
                    || Connection::new(peer_node_id),
                );
                // 8.4 names the addresses here; 9 has events for paths.
                let only = addresses.filter(|_| peer_node_id.is_none());
                let differs = (name.is_some() && set(&mut found.name, name))
                    | only.is_some_and(|pair| set(&mut found.paths, vec![Path::new(pair, None)]))
                    | info.is_some_and(|info| found.update(info))
                    | statistics.is_some_and(|s| set(&mut found.statistics, s));
                ((differs || action == Action::Create).then(key), action)
            }
        }
        EventKind::PeerDevice {
            resource,
            volume,
            peer_node_id,
            info,
            statistics,
        } => {
            let Some(owner) = owner.connection_mut(peer_node_id) else {
                return destroy || peer_node_id.is_none();
            };
            let key = || ObjectKey::PeerDevice {
                resource,
                peer_node_id,
                volume,
            };
            if destroy {
                let removed = remove(&mut owner.peer_devices, |p| p.volume == volume);
                (removed.then(key), Action::Destroy)
            } else {
                let (found, action) = entry(
                    &mut owner.peer_devices,
                    |p| p.volume.cmp(&volume),
                    || PeerDevice::new(volume),
                );
                let differs = info.is_some_and(|info| found.update(info))
                    | statistics.is_some_and(|s| set(&mut found.statistics, s));
                ((differs || action == Action::Create).then(key), action)
            }
        }
        EventKind::Path {
            resource,
            peer_node_id,
            addresses,
            established,
        } => {
            let Some(owner) = owner.connection_mut(peer_node_id) else {
                return destroy;
            };
            // These stay in the order in which they came.
            let found = owner.paths.iter_mut().find(|p| p.addresses == addresses);
            let (differs, action) = match found {
                _ if destroy => {
                    let removed = remove(&mut owner.paths, |p| p.addresses == addresses);
                    (removed, Action::Destroy)
                }
                Some(path) => (set(&mut path.established, established), Action::Change),
                None => {
                    owner.paths.push(Path::new(addresses.clone(), established));
                    (true, Action::Create)
                }
            };
            let key = || ObjectKey::Path {
                resource,
                peer_node_id,
                addresses,
            };
            (differs.then(key), action)
        }
        _ => return true,
    };
    if let (Some(object), Some(changes)) = (object, changes) {
        changes.push(Change { object, action });
    }
    true
}

/// The object in a list that is in order, made in its place if it is not there.
fn entry<T>(
    list: &mut Vec<T>,
    order: impl Fn(&T) -> Ordering,
    make: impl FnOnce() -> T,
) -> (&mut T, Action) {
    match list.binary_search_by(order) {
        Ok(at) => (&mut list[at], Action::Change),
        Err(at) => {
            make_room(list);
            list.insert(at, make());
            (&mut list[at], Action::Create)
        }
    }
}

fn remove<T>(list: &mut Vec<T>, same: impl Fn(&T) -> bool) -> bool {
    let before = list.len();
    list.retain(|item| !same(item));
    list.len() != before
}

/// What made `new` out of `old`: destroyed from the inside out, then made
/// and changed from the outside in.
pub(crate) fn difference(old: &State, new: &State) -> Vec<Change> {
    // Nearly all are as they were.
    let (mut was, mut is) = (Vec::new(), Vec::new());
    let (mut before, mut after) = (old.resources.as_slice(), new.resources.as_slice());
    while let ([a, before_rest @ ..], [b, after_rest @ ..]) = (before, after) {
        let order = a.name.cmp(&b.name);
        if order.is_le() {
            before = before_rest;
        }
        if order.is_ge() {
            after = after_rest;
        }
        if order.is_eq() && a == b {
            continue;
        }
        was.extend(order.is_le().then_some(a));
        is.extend(order.is_ge().then_some(b));
    }
    was.extend(before);
    is.extend(after);
    let (was, is) = (objects(was), objects(is));
    let gone = was.keys().filter(|key| !is.contains_key(key)).rev();
    let changes = gone.map(|key| (key, Action::Destroy));
    let made = is.iter().filter_map(|(key, value)| match was.get(key) {
        None => Some((key, Action::Create)),
        Some(before) if before != value => Some((key, Action::Change)),
        Some(_) => None,
    });
    changes
        .chain(made)
        .map(|(object, action)| Change {
            object: object.clone(),
            action,
        })
        .collect()
}

/// An object without those it contains.
#[derive(PartialEq)]
enum Shallow {
    Resource(Resource),
    Device(Device),
    Connection(Connection),
    PeerDevice(PeerDevice),
    Path(Path),
}

fn objects(resources: Vec<&Resource>) -> BTreeMap<ObjectKey, Shallow> {
    let mut objects = BTreeMap::new();
    for resource in resources {
        let name = || resource.name.clone();
        for device in &resource.devices {
            let key = ObjectKey::Device {
                resource: name(),
                volume: device.volume,
            };
            objects.insert(key, Shallow::Device(device.clone()));
        }
        for connection in &resource.connections {
            let peer_node_id = connection.peer_node_id;
            for peer in &connection.peer_devices {
                let key = ObjectKey::PeerDevice {
                    resource: name(),
                    peer_node_id,
                    volume: peer.volume,
                };
                objects.insert(key, Shallow::PeerDevice(peer.clone()));
            }
            for path in &connection.paths {
                let addresses = path.addresses.clone();
                let key = ObjectKey::Path {
                    resource: name(),
                    peer_node_id,
                    addresses,
                };
                objects.insert(key, Shallow::Path(path.clone()));
            }
            let mut alone = connection.clone();
            (alone.peer_devices, alone.paths) = (Vec::new(), Vec::new());
            let key = ObjectKey::Connection {
                resource: name(),
                peer_node_id,
            };
            objects.insert(key, Shallow::Connection(alone));
        }
        let mut alone = resource.clone();
        (alone.devices, alone.connections) = (Vec::new(), Vec::new());
        objects.insert(
            ObjectKey::Resource { resource: name() },
            Shallow::Resource(alone),
        );
    }
    objects
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::model::{
        ConnectionInfo, ConnectionState, ConnectionStatistics, DeviceInfo, DeviceStatistics,
        DiskState, Minor, PeerDeviceInfo, PeerDeviceStatistics, ReplicationState, ResourceInfo,
        ResyncSuspended, Role, Sectors, Suspended, WriteOrdering,
    };

    fn event(action: Action, kind: EventKind) -> Event {
        Event {
            seq: 1,
            action,
            continues: false,
            kind,
        }
    }

    /// r0 with all that belongs to it, outside in; `late` is as it is later.
    fn kinds(name: &str, late: bool) -> [EventKind; 5] {
        let resource = || ResourceName::new(name).unwrap();
        let peer_node_id = Some(NodeId(1));
        let volume = VolumeNumber(0);
        let role = if late { Role::Primary } else { Role::Secondary };
        let disk_state = if late {
            DiskState::UpToDate
        } else {
            DiskState::Inconsistent
        };
        [
            EventKind::Resource {
                resource: resource(),
                info: Some(ResourceInfo {
                    role,
                    suspended: Suspended::default(),
                    fail_io: None,
                }),
                statistics: None,
                new_name: None,
            },
            EventKind::Device {
                resource: resource(),
                volume,
                minor: Some(Minor(7)),
                info: Some(DeviceInfo {
                    disk_state,
                    intentional_diskless: None,
                    quorum: None,
                    backing_dev: None,
                    open: None,
                }),
                statistics: None,
            },
            EventKind::Connection {
                resource: resource(),
                peer_node_id,
                name: Some("n1".into()),
                addresses: None,
                info: Some(ConnectionInfo {
                    state: ConnectionState::Connected,
                    peer_role: role,
                }),
                statistics: None,
            },
            EventKind::PeerDevice {
                resource: resource(),
                volume,
                peer_node_id,
                info: Some(PeerDeviceInfo {
                    replication: ReplicationState::Established,
                    peer_disk_state: disk_state,
                    resync_suspended: ResyncSuspended::default(),
                    peer_intentional_diskless: None,
                }),
                statistics: None,
            },
            EventKind::Path {
                resource: resource(),
                peer_node_id,
                addresses: AddressPair {
                    local: "10.0.0.1:1".parse().unwrap(),
                    remote: "10.0.0.2:1".parse().unwrap(),
                },
                established: Some(late),
            },
        ]
    }

    fn words(changes: &[Change]) -> Vec<String> {
        let word = |change: &Change| format!("{:?} {}", change.action, change.object);
        changes.iter().map(word).collect()
    }

    const OBJECTS: [&str; 5] = [
        "resource r0",
        "device r0/0",
        "connection r0 peer-node-id 1",
        "peer-device r0/0 peer-node-id 1",
        "path r0 peer-node-id 1 ipv4:10.0.0.1:1 ipv4:10.0.0.2:1",
    ];

    /// The state with r0 in it, early or late.
    fn state(late: bool) -> State {
        let mut state = State::empty();
        for kind in kinds("r0", late) {
            state.apply(event(Action::Exists, kind));
        }
        state
    }

    #[test]
    fn every_object_comes_changes_and_goes() {
        let mut state = State::empty();
        for (late, action) in [(false, "Create"), (true, "Change")] {
            for (kind, object) in kinds("r0", late).into_iter().zip(OBJECTS) {
                let changes = state.apply(event(Action::Change, kind.clone()));
                assert_eq!(words(&changes), [format!("{action} {object}")]);
                // A repetition is none.
                assert_eq!(state.apply(event(Action::Change, kind)), []);
            }
        }
        assert_eq!(state, self::state(true));
        for (kind, object) in kinds("r0", true).into_iter().zip(OBJECTS).rev() {
            let changes = state.apply(event(Action::Destroy, kind.clone()));
            assert_eq!(words(&changes), [format!("Destroy {object}")]);
            assert_eq!(state.apply(event(Action::Destroy, kind)), []);
        }
        assert_eq!(state, State::empty());
    }

    /// What belongs to something that is not there means that events were
    /// missed, unless it goes.
    #[test]
    fn an_object_without_its_owner() {
        for (kind, owner) in kinds("r0", false)
            .into_iter()
            .zip([false, true, true, true, true])
        {
            let mut state = State::empty();
            let mut merged = |action| {
                let mut changes = Vec::new();
                let whole = merge(&mut state, event(action, kind.clone()), &mut changes);
                assert!(changes.is_empty() || whole);
                whole
            };
            assert!(merged(Action::Destroy), "{kind:?}");
            assert_eq!(merged(Action::Change), !owner, "{kind:?}");
        }
        // 8.4 tells of volumes whose connection is not configured.
        let mut state = state(false);
        let legacy = EventKind::PeerDevice {
            resource: ResourceName::new("r0").unwrap(),
            volume: VolumeNumber(0),
            peer_node_id: None,
            info: None,
            statistics: None,
        };
        assert!(merge(
            &mut state,
            event(Action::Change, legacy),
            &mut Vec::new()
        ));
        // And of that connection.
        let legacy = EventKind::Connection {
            resource: ResourceName::new("r0").unwrap(),
            peer_node_id: None,
            name: None,
            addresses: None,
            info: None,
            statistics: None,
        };
        assert_eq!(state.apply(event(Action::Change, legacy)), []);
        assert_eq!(state, self::state(false));
    }

    /// An event about r0, or a part of it, in which three things vary.
    fn varied(of: usize, [info, statistics, rest]: [bool; 3]) -> EventKind {
        let [mut resource, mut device, mut connection, mut peer_device, _] = kinds("r0", info);
        let number = u64::from(statistics);
        if let EventKind::Resource { statistics, .. } = &mut resource {
            let write_ordering = Some(WriteOrdering::from(u32::from(number != 0)));
            *statistics = Some(ResourceStatistics { write_ordering });
        }
        if let EventKind::Device {
            statistics, minor, ..
        } = &mut device
        {
            *minor = Some(Minor(u32::from(rest)));
            *statistics = Some(DeviceStatistics {
                al_writes: number,
                ..DeviceStatistics::default()
            });
        }
        if let EventKind::PeerDevice { statistics, .. } = &mut peer_device {
            *statistics = Some(PeerDeviceStatistics {
                sent: Sectors(number),
                ..PeerDeviceStatistics::default()
            });
        }
        if let EventKind::Connection {
            peer_node_id,
            name,
            addresses,
            statistics,
            ..
        } = &mut connection
        {
            *statistics = Some(ConnectionStatistics {
                congested: number != 0,
                ..ConnectionStatistics::default()
            });
            *name = Some(if rest { "n1" } else { "n2" }.into());
            // As 8.4 has it.
            if of == 4 {
                *peer_node_id = None;
                let port = 1 + u16::from(rest);
                let end = |ip: [u8; 4]| (std::net::Ipv4Addr::from(ip), port).into();
                *addresses = Some(AddressPair {
                    local: end([10, 0, 0, 1]),
                    remote: end([10, 0, 0, 2]),
                });
            }
        }
        match of {
            0 => resource,
            1 => device,
            3 => peer_device,
            _ => connection,
        }
    }

    /// Whatever part of an event is news makes one change; no news makes none.
    #[test]
    fn any_news_is_a_change() {
        let all = || (0..8).map(|n| [n & 1 != 0, n & 2 != 0, n & 4 != 0]);
        for (of, from, to) in
            (0..5).flat_map(|of| all().flat_map(move |from| all().map(move |to| (of, from, to))))
        {
            let made = |parts| {
                let mut made = state(false);
                made.apply(event(Action::Change, varied(of, parts)));
                made
            };
            let mut state = made(from);
            let (was, is) = (varied(of, from), varied(of, to));
            let changes = state.apply(event(Action::Change, is.clone()));
            assert_eq!(changes.len(), usize::from(was != is), "{was:?} {is:?}");
            assert_eq!(state, made(to), "{was:?} {is:?}");
        }
    }

    /// A connection keeps its name when an event does not give it; what is
    /// over a connection that is not there needs it, unless it goes.
    #[test]
    fn connections_and_what_is_over_them() {
        let mut with = state(false);
        let mut nameless = kinds("r0", false)[2].clone();
        if let EventKind::Connection { name, .. } = &mut nameless {
            *name = None;
        }
        assert_eq!(with.apply(event(Action::Change, nameless)), []);
        assert_eq!(with, state(false));
        let mut without = State::empty();
        let [resource, _, _, peer_device, path] = kinds("r0", false);
        without.apply(event(Action::Create, resource));
        for kind in [peer_device, path] {
            for (action, whole) in [(Action::Destroy, true), (Action::Change, false)] {
                let event = event(action, kind.clone());
                assert_eq!(merge(&mut without, event, &mut Vec::new()), whole);
            }
        }
    }

    #[test]
    fn a_renamed_resource_is_found_and_in_order() {
        let mut state = state(false);
        for kind in kinds("r1", false) {
            state.apply(event(Action::Create, kind));
        }
        let rename = EventKind::Resource {
            resource: ResourceName::new("r0").unwrap(),
            info: None,
            statistics: None,
            new_name: Some(ResourceName::new("r9").unwrap()),
        };
        let changes = state.apply(event(Action::Rename, rename));
        assert_eq!(words(&changes), ["Rename resource r0"]);
        let names: Vec<_> = state.resources.iter().map(|r| r.name.to_string()).collect();
        assert_eq!(names, ["r1", "r9"]);
        assert_eq!(
            state
                .by_name(&ResourceName::new("r9").unwrap())
                .unwrap()
                .devices
                .len(),
            1
        );
    }

    #[test]
    fn differences_go_from_the_inside_out_and_come_from_the_outside_in() {
        let (empty, early, late) = (State::empty(), state(false), state(true));
        assert_eq!(difference(&early, &early), []);
        assert_eq!(difference(&empty, &empty), []);
        for (before, after, action) in [
            (&empty, &late, "Create"),
            (&late, &empty, "Destroy"),
            (&early, &late, "Change"),
        ] {
            let mut seen = words(&difference(before, after));
            if action == "Destroy" {
                seen.reverse();
            }
            assert_eq!(seen, OBJECTS.map(|object| format!("{action} {object}")));
        }
    }

    #[test]
    fn counters_wrap() {
        assert!(before(1, 2) && !before(2, 1) && !before(2, 2));
        assert!(before(u32::MAX, 0) && !before(0, u32::MAX));
        assert!(before(0, (1 << 31) - 1) && !before(0, 1 << 31));
    }
}
