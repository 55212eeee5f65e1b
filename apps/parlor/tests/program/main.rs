//! The program as those who run it meet it: each test starts it as a process of its own.
#![allow(clippy::unwrap_used, missing_docs)]

mod addresses;
mod check;
mod commands;
mod ends;
mod kill;
mod load_test;
mod reload;
mod serve;
mod server;
mod view;
