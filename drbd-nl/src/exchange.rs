//! Requests and answers on one transport, up to one deadline.

use crate::client::Family;
use crate::dialect::Dialect;
use crate::dialect::decode::Message;
use crate::dialect::request::Request;
use crate::error::{Cause, Error, ErrorKind};
use crate::events::{Action, EventKind, LegacyEvent};
use crate::model::Text;
use crate::schema::codes;
use crate::socket::{Deadline, Received, Transport};
use crate::wire::{Control, Messages, NLM_F_DUMP_INTR, Native, NlMsg, WireError};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// Why an exchange did not give an answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It failed, and that is known.
    Error(Error),
    /// The deadline passed, or the answer was lost.
    NoAnswer,
    /// The dump was disturbed; take it again.
    Disturbed,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// A success of DRBD.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) ret_code: i32,
    pub(crate) info: Vec<Text>,
    /// With GET_TIMEOUT_TYPE.
    pub(crate) timeout_type: Option<u32>,
    /// With GET_STATUS.
    pub(crate) status84: Option<Box<LegacyEvent>>,
}

/// One transport with everything a request needs.
#[derive(Debug)]
pub(crate) struct Exchange<T> {
    transport: T,
    pub(crate) family: Family,
    pub(crate) deadline: Deadline,
    pub(crate) op: String,
    pub(crate) target: String,
    seq: u32,
    buffer: Vec<u8>,
    promise: Arc<Promise>,
    watch: Watch,
}

/// What an exchange knows of changes while it reads several dumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// Nothing: its transport has not joined the events.
    Off,
    /// No answer has come yet, so what is announced is in all of them.
    Before,
    /// Nothing was announced since.
    Still,
    /// Something was.
    Moved,
}

/// What the thread that carries out and the caller that waits for it owe each
/// other: after the caller has said "nothing was sent", nothing is sent.
#[derive(Debug, Default)]
pub(crate) struct Promise(AtomicU8);

const IDLE: u8 = 0;
const CHANGING: u8 = 1;
const ABANDONED: u8 = 2;

impl Promise {
    /// Before a request that changes something is sent; false when the
    /// caller has given up.
    fn begin(&self) -> bool {
        let claimed = self
            .0
            .compare_exchange(IDLE, CHANGING, Ordering::SeqCst, Ordering::SeqCst);
        claimed.is_ok() || claimed == Err(CHANGING)
    }

    /// The caller gives up; true when nothing was sent, nor will be.
    pub(crate) fn abandon(&self) -> bool {
        let claimed = self
            .0
            .compare_exchange(IDLE, ABANDONED, Ordering::SeqCst, Ordering::SeqCst);
        claimed.is_ok() || claimed == Err(ABANDONED)
    }
}

/// First pause before a transient state is tried again; doubles each time.
const BACKOFF: Duration = Duration::from_micros(62_500);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

impl<T: Transport> Exchange<T> {
    pub(crate) fn new(
        transport: T,
        family: Family,
        deadline: Deadline,
        (op, target): (String, String),
        promise: Arc<Promise>,
    ) -> Self {
        Self {
            transport,
            family,
            deadline,
            op,
            target,
            seq: 0,
            buffer: Vec::new(),
            promise,
            watch: Watch::Off,
        }
    }

    /// The same on a transport that has joined the events.
    pub(crate) fn watching(mut self) -> Self {
        self.watch = Watch::Before;
        self
    }

    /// The transport, for another exchange.
    pub(crate) fn into_transport(self) -> T {
        self.transport
    }

    /// Whether a change was announced since the first answer. Nothing is
    /// waited for from now on.
    pub(crate) fn moved(&mut self) -> Result<bool, Failure> {
        let deadline = std::mem::replace(&mut self.deadline, Deadline::PASSED);
        for received in 1u64.. {
            if self.watch != Watch::Still || (received % 64 == 0 && deadline.passed()) {
                break;
            }
            match self.receive() {
                Ok(()) => {}
                Err(Failure::NoAnswer) => break,
                Err(failure) => return Err(failure),
            }
            let buffer = std::mem::take(&mut self.buffer);
            for msg in Messages::<Native>::new(&buffer) {
                let msg = msg.map_err(|error| self.wire(error))?;
                self.expect(&msg)?;
            }
        }
        Ok(self.watch == Watch::Moved)
    }

    /// Takes note of an event; false for anything else.
    fn note(&mut self, msg: &NlMsg<'_>) -> Result<bool, Failure> {
        // Answers are for our port, events for none.
        if self.watch == Watch::Off || msg.pid != 0 || msg.kind != self.family.id {
            return Ok(false);
        }
        let event = Message::<Native>::read(self.dialect(), msg)
            .and_then(|message| message.event())
            .map_err(|error| self.wire(error))?;
        let change = !matches!(event.kind, EventKind::Legacy(_) | EventKind::Helper(_))
            && event.action != Action::Exists;
        if change && self.watch == Watch::Still {
            self.watch = Watch::Moved;
        }
        Ok(true)
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.family.dialect
    }

    pub(crate) fn error(&self, cause: Cause) -> Error {
        Error::new(self.op.as_str(), self.target.as_str(), cause)
    }

    pub(crate) fn local(&self, kind: ErrorKind, text: impl Into<String>) -> Error {
        Error::local(self.op.as_str(), self.target.as_str(), kind, text)
    }

    fn wire(&self, error: WireError) -> Failure {
        self.error(Cause::Malformed(error)).into()
    }

    fn send(&mut self, request: &Request<Native>) -> Result<(), Failure> {
        self.seq = self.seq.wrapping_add(1);
        let bytes = request
            .bytes(self.family.id, self.seq, self.transport.port())
            .map_err(|error| self.local(ErrorKind::InvalidInput, error.what))?;
        self.transport.send(&bytes).map_err(|source| {
            self.error(Cause::System {
                call: "send",
                source,
            })
            .into()
        })
    }

    /// Receives into the buffer: from the kernel, whole, before the deadline.
    fn receive(&mut self) -> Result<(), Failure> {
        loop {
            let received = self
                .transport
                .receive(&mut self.buffer, self.deadline)
                .map_err(|source| {
                    self.error(Cause::System {
                        call: "receive",
                        source,
                    })
                })?;
            match received {
                Received::Overrun if self.watch != Watch::Off => return Err(Failure::Disturbed),
                Received::TimedOut | Received::Overrun => return Err(Failure::NoAnswer),
                // Other processes can send to our port; only the kernel has port 0.
                Received::Datagram(datagram) if datagram.sender != 0 => {
                    if self.deadline.passed() {
                        return Err(Failure::NoAnswer);
                    }
                }
                Received::Datagram(datagram) if datagram.truncated => {
                    return Err(self.wire(WireError {
                        what: "datagram: truncated",
                        at: 0,
                    }));
                }
                Received::Datagram(_) => return Ok(()),
            }
        }
    }

    /// What a netlink error means for this exchange.
    fn netlink(&self, code: i32, extack: Option<Vec<u8>>) -> Failure {
        let source = io::Error::from_raw_os_error(code.wrapping_neg());
        match source.raw_os_error() {
            Some(libc::ENOENT) => self.local(
                ErrorKind::ModuleNotLoaded,
                "the DRBD module was unloaded (or loaded again) since the family was looked up; \
                 load it and open again",
            ),
            // Events have left no room for the dump.
            Some(libc::ENOBUFS) if self.watch != Watch::Off => return Failure::Disturbed,
            _ => self.error(Cause::Netlink {
                source,
                extack: extack.map(|t| Text::from_bytes(&t)),
            }),
        }
        .into()
    }

    /// Checks that a message answers the last request. `Some` for one that
    /// holds no answer: a control message, or an event that was taken note of.
    fn expect(&mut self, msg: &NlMsg<'_>) -> Result<Option<Control>, Failure> {
        if self.note(msg)? {
            return Ok(Some(Control::Other(msg.kind)));
        }
        if self.watch == Watch::Before {
            self.watch = Watch::Still;
        }
        if msg.seq != self.seq {
            return Err(self.wire(WireError {
                what: "answer: unexpected sequence number",
                at: 8,
            }));
        }
        if msg.pid != self.transport.port() {
            return Err(self.wire(WireError {
                what: "answer: unexpected port",
                at: 12,
            }));
        }
        let control = msg.control::<Native>().map_err(|error| self.wire(error))?;
        if control.is_none() && msg.kind != self.family.id {
            return Err(self.wire(WireError {
                what: "answer: unexpected message type",
                at: 4,
            }));
        }
        Ok(control)
    }

    /// Sends a request that changes something, once, and reads its answer.
    fn change_once(&mut self, request: &Request<Native>) -> Result<Answer, Failure> {
        if !self.promise.begin() {
            return Err(Failure::NoAnswer);
        }
        self.send(request)?;
        loop {
            self.receive()?;
            let buffer = std::mem::take(&mut self.buffer);
            let answer = self.read_answer(&buffer, request.command);
            self.buffer = buffer;
            if let Some(answer) = answer? {
                return Ok(answer);
            }
        }
    }

    fn read_answer(&mut self, datagram: &[u8], command: u8) -> Result<Option<Answer>, Failure> {
        for msg in Messages::<Native>::new(datagram) {
            let msg = msg.map_err(|error| self.wire(error))?;
            match self.expect(&msg)? {
                Some(Control::Error(code, extack)) if code != 0 => {
                    return Err(self.netlink(code, extack));
                }
                Some(_) => {}
                None => {
                    let message = Message::<Native>::read(self.dialect(), &msg)
                        .map_err(|error| self.wire(error))?;
                    if message.command != command {
                        let what = "answer: to another command";
                        return Err(self.wire(WireError { what, at: 16 }));
                    }
                    let info = message.info_texts().map_err(|error| self.wire(error))?;
                    let status84 = message.status84().map_err(|error| self.wire(error))?;
                    let timeout_type = message.timeout_type().map_err(|error| self.wire(error))?;
                    return Ok(Some(Answer {
                        ret_code: message.ret_code,
                        info,
                        timeout_type,
                        status84,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Sends a request that changes something until DRBD decides: a
    /// transient state and an interruption are tried again up to the deadline.
    pub(crate) fn change(&mut self, request: &Request<Native>) -> Result<Answer, Failure> {
        let mut pause = BACKOFF;
        loop {
            if self.deadline.passed() {
                return Err(Failure::NoAnswer);
            }
            let answer = self.change_once(request)?;
            let again = match answer.ret_code {
                codes::SS_IN_TRANSIENT_STATE | codes::ERR_INTR => true,
                codes::SS_INTERRUPTED => self.dialect() == Dialect::V9,
                _ => false,
            };
            if codes::is_success(answer.ret_code) {
                return Ok(answer);
            }
            if !again || self.deadline.left() <= pause {
                return Err(self.refused(answer).into());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    pub(crate) fn refused(&self, answer: Answer) -> Error {
        let Answer { ret_code, info, .. } = answer;
        self.error(Cause::Refused {
            dialect: self.dialect(),
            ret_code,
            info,
        })
    }

    /// Sends a dump request and hands every object to `take`.
    ///
    /// No filter is ever sent: a name that is unknown makes the kernel
    /// repeat itself without end, and 8.4 release a lock it has not taken.
    pub(crate) fn dump(
        &mut self,
        command: u8,
        mut take: impl FnMut(&Message<'_, Native>) -> Result<(), WireError>,
    ) -> Result<(), Failure> {
        let request = Request::dump(self.dialect(), command);
        self.send(&request)?;
        for received in 1u64.. {
            self.receive()?;
            let buffer = std::mem::take(&mut self.buffer);
            let done = self.read_dump(&buffer, command, &mut take);
            self.buffer = buffer;
            if done? {
                return Ok(());
            }
            // Where there is no vDSO, to look at the clock is a system call as well.
            if received % 64 == 0 && self.deadline.passed() {
                break;
            }
        }
        Err(Failure::NoAnswer)
    }

    fn read_dump(
        &mut self,
        datagram: &[u8],
        command: u8,
        take: &mut impl FnMut(&Message<'_, Native>) -> Result<(), WireError>,
    ) -> Result<bool, Failure> {
        for msg in Messages::<Native>::new(datagram) {
            let msg = msg.map_err(|error| self.wire(error))?;
            let control = self.expect(&msg)?;
            if msg.flags & NLM_F_DUMP_INTR != 0 && !matches!(control, Some(Control::Error(..))) {
                return Err(Failure::Disturbed);
            }
            match control {
                Some(Control::Done(0)) => return Ok(true),
                Some(Control::Done(code)) => return Err(self.netlink(code, None)),
                Some(Control::Error(code, extack)) if code != 0 => {
                    return Err(self.netlink(code, extack));
                }
                Some(_) => {}
                None => {
                    let message = Message::<Native>::read(self.dialect(), &msg)
                        .map_err(|error| self.wire(error))?;
                    if message.command != command {
                        let what = "answer: to another command";
                        return Err(self.wire(WireError { what, at: 16 }));
                    }
                    // The kernel repeats this message without end and never
                    // says it is done; the caller closes the socket.
                    if message.ret_code != 0 && !codes::is_success(message.ret_code) {
                        let info = message.info_texts().map_err(|error| self.wire(error))?;
                        let answer = Answer {
                            ret_code: message.ret_code,
                            info,
                            timeout_type: None,
                            status84: None,
                        };
                        return Err(self.refused(answer).into());
                    }
                    take(&message).map_err(|error| self.wire(error))?;
                }
            }
        }
        Ok(false)
    }
}
