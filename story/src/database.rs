//! The database of the full story: the workload's service with SQLite behind it, in WAL mode with
//! `synchronous=FULL`, so that an answered record is a committed transaction.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{SigSet, Signal};
use rusqlite::{Connection, OpenFlags, params};

use crate::record::Record;

/// How long one connection waits for another's transaction.
const BUSY: Duration = Duration::from_secs(30);

struct Server {
    path: PathBuf,
    epoch: u64,
    node: String,
}

/// Serves as the init of a container: answers `HELLO <writer>` and `PUT <n>` like the workload, and
/// ends at SIGTERM or SIGPWR.
pub fn serve(path: &Path, port: u16) -> Result<()> {
    let variable = |name: &str| std::env::var(name).with_context(|| name.to_owned());
    let server = Arc::new(Server {
        path: path.to_owned(),
        epoch: variable("FAILOVER_EPOCH")?
            .parse()
            .context("FAILOVER_EPOCH")?,
        node: variable("FAILOVER_NODE")?,
    });
    // Blocked in every thread, so that they come to the wait below; for process 1 they would
    // otherwise not count at all.
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTERM);
    stop.add(Signal::SIGPWR);
    stop.thread_block().context("blocking the stop signals")?;

    open(path)?.execute_batch(
        "CREATE TABLE IF NOT EXISTS record (
             writer INTEGER NOT NULL, n INTEGER NOT NULL, epoch INTEGER NOT NULL, node TEXT NOT NULL,
             PRIMARY KEY (writer, n))",
    )?;
    let listener = TcpListener::bind(("0.0.0.0", port)).context("listening")?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let server = Arc::clone(&server);
            thread::spawn(move || {
                if let Err(error) = answer(&server, stream) {
                    eprintln!("database: {error:#}");
                }
            });
        }
    });
    stop.wait().context("waiting for a stop signal")?;
    Ok(())
}

fn open(path: &Path) -> Result<Connection> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    let database = Connection::open(path).with_context(|| path.display().to_string())?;
    database.busy_timeout(BUSY)?;
    let mode: String = database.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
    ensure!(mode == "wal", "{}: journal mode {mode}", path.display());
    database.execute_batch("PRAGMA synchronous=FULL")?;
    Ok(database)
}

fn answer(server: &Server, stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut to = stream.try_clone()?;
    let mut lines = BufReader::new(stream).lines();
    let Some(hello) = lines.next().transpose()? else {
        return Ok(());
    };
    let Some(writer) = hello
        .strip_prefix("HELLO ")
        .and_then(|number| number.parse::<u32>().ok())
    else {
        bail!("unexpected request {hello:?}");
    };
    let database = open(&server.path)?;
    for line in lines {
        let line = line?;
        let Some(n) = line
            .strip_prefix("PUT ")
            .and_then(|n| n.parse::<i64>().ok())
        else {
            bail!("unexpected request {line:?}");
        };
        database.execute(
            "INSERT INTO record VALUES (?1, ?2, ?3, ?4)",
            params![writer, n, i64::try_from(server.epoch)?, server.node],
        )?;
        writeln!(to, "ACK {n} {} {}", server.epoch, server.node)?;
    }
    Ok(())
}

/// Checks the database at `path`, and returns the lines of each writer as the workload would have
/// written them. It may be in use.
pub fn read(path: &Path) -> Result<BTreeMap<u32, Vec<u8>>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database =
        Connection::open_with_flags(path, flags).with_context(|| path.display().to_string())?;
    database.busy_timeout(BUSY)?;
    let found: Vec<String> = database
        .prepare("PRAGMA integrity_check")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    ensure!(
        found == ["ok"],
        "{}: integrity_check: {}",
        path.display(),
        found.join("; ")
    );
    let mut files = BTreeMap::<u32, Vec<u8>>::new();
    let mut rows =
        database.prepare("SELECT writer, n, epoch, node FROM record ORDER BY writer, n")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let writer = row.get(0)?;
        let (n, epoch): (i64, i64) = (row.get(1)?, row.get(2)?);
        let record = Record {
            n: u64::try_from(n)?,
            epoch: u64::try_from(epoch)?,
            node: row.get(3)?,
        };
        files
            .entry(writer)
            .or_default()
            .extend(record.to_line(writer).as_bytes());
    }
    Ok(files)
}
