//! Raw declarations of liblxc, shared by the library and its helper program.
//!
//! `bindings.rs` is generated from the headers of the newest release we know.
//! The object that `lxc_container_new` returns is as long as the *running*
//! library made it, which may be shorter than `lxc_container` here: members
//! are only read one by one through raw pointers, never through a reference,
//! and a member newer than [`OLDEST`] only after a look at the version.

#[allow(
    dead_code,
    non_camel_case_types,
    non_upper_case_globals,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    unsafe_code,
    clippy::all,
    reason = "generated: declares the whole C interface, under its C names"
)]
pub(crate) mod bindings;
mod layout;
mod library;
mod object;

#[allow(
    unused_imports,
    reason = "the library and its helper use different ones"
)]
#[allow(unreachable_pub, reason = "public in the library, not in its helper")]
pub use self::library::Version;
#[allow(
    unused_imports,
    reason = "the library and its helper use different ones"
)]
pub(crate) use self::{
    bindings::*,
    layout::SLOTS,
    library::{Library, LoadError, OLDEST},
    object::{Object, call},
};

#[cfg(test)]
mod tests;
