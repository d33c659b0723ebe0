//! The workload of the demo: a server that is the init of the container, and its client.
//!
//! Built on its own and linked statically, so that the container needs nothing but this file.
//!
//! - `workload` as process 1 (or `workload serve DIR PORT`): keeps one file for each writer in
//!   `/data`. A client says `HELLO <writer>` once and then `PUT <n>` again and again; each is
//!   appended as a record, made durable with fdatasync, and only then answered with
//!   `ACK <n> <epoch> <node>`. With `WORKLOAD_NO_FSYNC` in its environment it leaves the fdatasync
//!   out: that is a sabotage which the demo must notice.
//! - `workload client ADDRESS WRITERS PAUSE`: as many writers as asked for, each sends its next
//!   record PAUSE milliseconds after the one before was answered, and prints what came of each, one line each:
//!   `ok <writer> <n> <epoch> <node> <microseconds>`, `unknown <writer> <n> <microseconds>` (sent, no
//!   answer), and `end <writer> <last n sent>` after SIGTERM. A record is sent once: what got no
//!   answer may or may not be in the file, and the next number goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

#[allow(dead_code, reason = "the side that reads records back is used by the demo")]
#[path = "../src/record.rs"]
mod record;
use record::Record;

/// How long the client waits for one answer before it counts the record as unknown.
const ANSWER: Duration = Duration::from_millis(2000);
/// How long the client waits for a connection, and sleeps after a refused one.
const CONNECT: Duration = Duration::from_millis(250);
const RETRY: Duration = Duration::from_millis(20);

static STOP: AtomicBool = AtomicBool::new(false);

const SIGTERM: i32 = 15;
const SIGPWR: i32 = 30;

unsafe extern "C" {
    fn signal(signum: i32, handler: usize) -> usize;
}

extern "C" fn on_stop(_: i32) {
    STOP.store(true, Ordering::Relaxed);
}

fn catch_stop_signals() {
    for number in [SIGTERM, SIGPWR] {
        // SAFETY: `on_stop` has the signature of a signal handler, lives as long as the program,
        // and only stores to an atomic, which is allowed in a handler.
        unsafe { signal(number, on_stop as extern "C" fn(i32) as usize) };
    }
}

fn main() {
    catch_stop_signals();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        [] if std::process::id() == 1 => serve(Path::new("/data"), "7000"),
        ["serve", dir, port] => serve(Path::new(dir), port),
        ["client", address, writers, pause] => client(address, writers, pause),
        _ => Err(io::Error::other("usage: workload serve DIR PORT | workload client ADDRESS WRITERS PAUSE")),
    };
    if let Err(error) = result {
        eprintln!("workload: {error}");
        std::process::exit(1);
    }
}

// ---- the server ---------------------------------------------------------------------------

struct Store {
    dir: PathBuf,
    epoch: u64,
    node: String,
    fsync: bool,
}

fn serve(dir: &Path, port: &str) -> io::Result<()> {
    let variable = |name: &str| {
        std::env::var(name).map_err(|_| io::Error::other(format!("{name} is not in the environment")))
    };
    let store = Arc::new(Store {
        dir: dir.to_owned(),
        epoch: variable("FAILOVER_EPOCH")?
            .parse()
            .map_err(|_| io::Error::other("FAILOVER_EPOCH is not a number"))?,
        node: variable("FAILOVER_NODE")?,
        fsync: std::env::var_os("WORKLOAD_NO_FSYNC").is_none(),
    });
    fs::create_dir_all(dir)?;
    let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
    listener.set_nonblocking(true)?;
    while !STOP.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let store = Arc::clone(&store);
                thread::spawn(move || {
                    if let Err(error) = answer(&store, stream) {
                        eprintln!("workload: {error}");
                    }
                });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn answer(store: &Store, stream: TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let mut to = stream.try_clone()?;
    let mut lines = BufReader::new(stream).lines();
    let bad = |line: &str| io::Error::other(format!("unexpected request {line:?}"));

    let Some(hello) = lines.next().transpose()? else { return Ok(()) };
    let writer: u32 = hello
        .strip_prefix("HELLO ")
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| bad(&hello))?;
    let mut file = open_whole(&store.dir.join(format!("w{writer}.log")))?;

    for line in lines {
        let line = line?;
        let n = line.strip_prefix("PUT ").and_then(|n| n.parse().ok()).ok_or_else(|| bad(&line))?;
        let record = Record { n, epoch: store.epoch, node: store.node.clone() };
        file.write_all(record.to_line(writer).as_bytes())?;
        if store.fsync {
            file.sync_data()?;
        }
        to.write_all(format!("ACK {n} {} {}\n", store.epoch, store.node).as_bytes())?;
    }
    Ok(())
}

/// Opens a writer's file for appending, and cuts off a last record that was not written whole:
/// it was never acknowledged, and what follows must start on a line of its own.
fn open_whole(path: &Path) -> io::Result<File> {
    let existed = path.exists();
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole < content.len() {
        file.set_len(whole as u64)?;
        file.seek(SeekFrom::End(0))?;
    }
    if !existed {
        // The name must be as durable as the records behind it.
        file.sync_all()?;
        if let Some(dir) = path.parent() {
            File::open(dir)?.sync_all()?;
        }
    }
    Ok(file)
}

// ---- the client ---------------------------------------------------------------------------

fn client(address: &str, writers: &str, pause: &str) -> io::Result<()> {
    let address: SocketAddr =
        address.parse().map_err(|_| io::Error::other(format!("{address:?} is not ADDRESS:PORT")))?;
    let writers: u32 =
        writers.parse().map_err(|_| io::Error::other(format!("{writers:?} is not a number")))?;
    let pause: u64 =
        pause.parse().map_err(|_| io::Error::other(format!("{pause:?} is not a number")))?;
    let pause = Duration::from_millis(pause);
    let start = Instant::now();
    let threads: Vec<_> = (0..writers)
        .map(|writer| thread::spawn(move || write_records(writer, address, pause, start)))
        .collect();
    for thread in threads {
        thread.join().map_err(|_| io::Error::other("a writer panicked"))??;
    }
    Ok(())
}

fn write_records(
    writer: u32,
    address: SocketAddr,
    pause: Duration,
    start: Instant,
) -> io::Result<()> {
    let mut sent = 0_u64;
    while !STOP.load(Ordering::Relaxed) {
        if let Ok(mut connection) = Connection::open(writer, address) {
            while !STOP.load(Ordering::Relaxed) {
                sent += 1;
                let reply = connection.put(sent);
                let at = start.elapsed().as_micros();
                match reply {
                    Ok((epoch, node)) => {
                        say(&format!("ok {writer} {sent} {epoch} {node} {at}"))?;
                        thread::sleep(pause);
                    }
                    Err(_) => {
                        say(&format!("unknown {writer} {sent} {at}"))?;
                        break;
                    }
                }
            }
        } else {
            thread::sleep(RETRY);
        }
    }
    say(&format!("end {writer} {sent}"))
}

/// Prints one line at once, in one piece.
fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}

struct Connection {
    to: TcpStream,
    from: BufReader<TcpStream>,
}

impl Connection {
    fn open(writer: u32, address: SocketAddr) -> io::Result<Self> {
        let mut to = TcpStream::connect_timeout(&address, CONNECT)?;
        to.set_nodelay(true)?;
        to.set_read_timeout(Some(ANSWER))?;
        to.set_write_timeout(Some(ANSWER))?;
        to.write_all(format!("HELLO {writer}\n").as_bytes())?;
        let from = BufReader::new(to.try_clone()?);
        Ok(Self { to, from })
    }

    /// Sends one record; the epoch and the node that acknowledged it.
    fn put(&mut self, n: u64) -> io::Result<(u64, String)> {
        self.to.write_all(format!("PUT {n}\n").as_bytes())?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        let mut words = line.trim_end_matches('\n').split(' ');
        match (words.next(), words.next(), words.next(), words.next(), words.next()) {
            (Some("ACK"), Some(number), Some(epoch), Some(node), None)
                if number.parse() == Ok(n) && line.ends_with('\n') =>
            {
                let epoch = epoch.parse().map_err(|_| io::ErrorKind::InvalidData)?;
                Ok((epoch, node.to_owned()))
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
