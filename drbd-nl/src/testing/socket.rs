//! The socket of a node that is made up: its descriptor is a real one, so
//! that it can be polled.

use super::FakeCluster;
use crate::socket::{Datagram, Deadline, Received, Transport};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// What a datagram is, or that some are missing.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Datagram(Vec<u8>),
    Overrun,
}

/// What the kernel's end and the user's end of a socket share.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    bell: UnixStream,
    ear: UnixStream,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    joined: bool,
}

impl Shared {
    pub(super) fn new() -> io::Result<Self> {
        let (bell, ear) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ear.set_nonblocking(true)?;
        Ok(Self {
            queue: Mutex::default(),
            arrived: Condvar::new(),
            bell,
            ear,
        })
    }

    pub(super) fn push(&self, item: Item) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.items.push_back(item);
        // A full pipe rings loud enough.
        let _ = (&self.bell).write(&[1]);
        self.arrived.notify_all();
    }

    pub(super) fn joined(&self) -> bool {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.joined
    }

    fn set_joined(&self, joined: bool) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.joined = joined;
    }

    fn pop(&self, deadline: Deadline) -> Option<Item> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(item) = queue.items.pop_front() {
                if queue.items.is_empty() {
                    let mut rings = [0; 512];
                    while matches!((&self.ear).read(&mut rings), Ok(1..)) {}
                }
                return Some(item);
            }
            if deadline.passed() {
                return None;
            }
            let wait = deadline.left().min(Duration::from_secs(60));
            queue = self
                .arrived
                .wait_timeout(queue, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// A socket to the kernel of a [`FakeNode`](super::FakeNode).
#[derive(Debug)]
pub struct FakeSocket {
    cluster: FakeCluster,
    node: usize,
    port: u32,
    shared: Arc<Shared>,
}

impl FakeSocket {
    pub(super) fn new(
        cluster: FakeCluster,
        node: usize,
        port: u32,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        Ok(Self {
            cluster,
            node,
            port,
            shared,
        })
    }
}

impl Transport for FakeSocket {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let delay = self.cluster.lock().delay(self.node, datagram);
        // As in the kernel, the request is carried out in this call.
        std::thread::sleep(delay);
        let answers = self.cluster.lock().request(self.node, self.port, datagram);
        for answer in answers {
            self.shared.push(Item::Datagram(answer));
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>, deadline: Deadline) -> io::Result<Received> {
        Ok(match self.shared.pop(deadline) {
            Some(Item::Datagram(datagram)) => {
                *buffer = datagram;
                Received::Datagram(Datagram {
                    sender: 0,
                    truncated: false,
                })
            }
            Some(Item::Overrun) => Received::Overrun,
            None => Received::TimedOut,
        })
    }

    fn join(&mut self, _: u32) -> io::Result<()> {
        self.shared.set_joined(true);
        Ok(())
    }

    fn leave(&mut self, _: u32) -> io::Result<()> {
        self.shared.set_joined(false);
        Ok(())
    }

    fn port(&self) -> u32 {
        self.port
    }
}

impl AsFd for FakeSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.ear.as_fd()
    }
}
