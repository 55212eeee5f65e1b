//! The packet path (to be written): see [`command`].
#![forbid(unsafe_code)]

pub mod command;
