//! What operators do to a server: check, kill, drain, reload, look.
#![allow(clippy::unwrap_used, missing_docs)]

mod check;
mod commands;
mod ends;
mod kill;
mod reload;
mod server;
mod view;
