//! A transport that answers with what a real kernel once said.

use crate::load::Run;
use drbd_nl::schema::{cmd, ctrl};
use drbd_nl::socket::{Connector, Datagram, Deadline, Received, Transport};
use drbd_nl::wire::{Little, MessageBuilder};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};

/// What a command was answered with, in the order of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    family: Vec<u8>,
    replies: BTreeMap<u8, Vec<Vec<u8>>>,
    family_id: u16,
}

#[derive(Debug)]
pub(crate) struct Replay {
    answers: Answers,
    pub(crate) sent: Arc<Mutex<Vec<Vec<u8>>>>,
}

#[derive(Debug)]
pub(crate) struct Socket {
    answers: Answers,
    queue: VecDeque<Vec<u8>>,
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// ERR_MINOR_INVALID, but not to a dump.
fn refusal(family: u16, command: u8) -> Vec<u8> {
    let mut builder = MessageBuilder::<Little>::genl(family, 0, command, 1).drbd(u32::MAX, 127);
    builder.attrs();
    builder.finish(0, 0).unwrap()
}

const PORT: u32 = 4711;

impl Replay {
    pub(crate) fn of(run: &Run) -> Self {
        let mut answers = Answers {
            family_id: run.family,
            ..Answers::default()
        };
        for message in run.received() {
            if message.kind() == ctrl::GENL_ID_CTRL && answers.family.is_empty() {
                answers.family.clone_from(&message.bytes);
            } else if message.kind() == run.family {
                answers
                    .replies
                    .entry(message.command())
                    .or_default()
                    .push(message.bytes.clone());
            }
        }
        Self {
            answers,
            sent: Arc::default(),
        }
    }

    /// With what another run was answered to one command.
    pub(crate) fn with(mut self, run: &Run, command: u8) -> Self {
        let other = Self::of(run).answers;
        // The family may have had another id there.
        let mut replies = other.replies.get(&command).cloned().unwrap_or_default();
        for reply in &mut replies {
            reply[4..6].copy_from_slice(&self.answers.family_id.to_le_bytes());
        }
        self.answers.replies.insert(command, replies);
        self
    }
}

impl Connector for Replay {
    type Transport = Socket;

    fn open(&self) -> io::Result<Socket> {
        Ok(Socket {
            answers: self.answers.clone(),
            queue: VecDeque::new(),
            sent: Arc::clone(&self.sent),
        })
    }
}

impl Transport for Socket {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let kind = u16::from_le_bytes([datagram[4], datagram[5]]);
        let dump = datagram[7] & 3 == 3;
        let seq = &datagram[8..12];
        let answers = if kind == ctrl::GENL_ID_CTRL {
            vec![self.answers.family.clone()]
        } else {
            self.sent.lock().unwrap().push(datagram.to_vec());
            self.answers
                .replies
                .get(&datagram[16])
                .cloned()
                // drbdsetup did not ask; so there is no such minor.
                .unwrap_or_else(|| match datagram[16] {
                    cmd::GET_STATUS => vec![refusal(self.answers.family_id, cmd::GET_STATUS)],
                    _ => Vec::new(),
                })
        };
        for mut answer in answers {
            answer[8..12].copy_from_slice(seq);
            answer[12..16].copy_from_slice(&PORT.to_le_bytes());
            self.queue.push_back(answer);
        }
        if dump {
            let mut done = vec![20, 0, 0, 0, 3, 0, 2, 0];
            done.extend_from_slice(seq);
            done.extend_from_slice(&PORT.to_le_bytes());
            done.extend_from_slice(&[0; 4]);
            self.queue.push_back(done);
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>, _: Deadline) -> io::Result<Received> {
        Ok(match self.queue.pop_front() {
            Some(datagram) => {
                *buffer = datagram;
                Received::Datagram(Datagram {
                    sender: 0,
                    truncated: false,
                })
            }
            None => Received::TimedOut,
        })
    }

    fn join(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }

    fn port(&self) -> u32 {
        PORT
    }
}
