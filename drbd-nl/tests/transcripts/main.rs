//! Recorded traffic of real kernels: every message decodes, what it decodes
//! to is what drbdsetup printed, and our requests are the bytes drbdsetup sent.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod decide;
mod decode;
mod encode;
mod events;
mod fake;
#[path = "../common/json.rs"]
mod json;
#[path = "../common/lines.rs"]
mod lines;
mod load;
mod replay;
mod status;
#[path = "../common/text.rs"]
mod text;
