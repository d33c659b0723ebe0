//! Samples, and the C loop that DRBD's state is compared with.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Compiles `drbd_rival.c`, beside the program that runs.
///
/// # Errors
/// When it does not compile.
pub fn c_loop(name: &str) -> Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/drbd_rival.c");
    let compiled = Command::new("cc")
        .args(["-O2", "-o"])
        .args([&program, &source])
        .status()?;
    if !compiled.success() {
        return Err("the rival does not compile".into());
    }
    Ok(program)
}

/// Milliseconds of each of so many runs.
///
/// # Errors
/// The first that a run gives.
pub fn timed(samples: usize, mut run: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    let time = |_| {
        let start = Instant::now();
        run()?;
        Ok(start.elapsed().as_secs_f64() * 1000.0)
    };
    (0..samples).map(time).collect()
}

/// What a program says, which has to succeed.
///
/// # Errors
/// When it does not.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {output:?}").into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The milliseconds that the C loop printed.
///
/// # Errors
/// As [`output`]; when it printed something else.
pub fn samples_of(command: &mut Command) -> Result<Vec<f64>> {
    let text = output(command)?;
    let times: std::result::Result<_, _> = text.lines().map(str::parse).collect();
    Ok(times?)
}

/// The one in the middle.
#[must_use]
pub fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
