//! Machine lifecycle, gateway, settings and events.
//!
//! [`run`] is the whole daemon: it takes the single-instance lock, adopts the machines that still run, serves the
//! control API and a Docker socket for each machine, and returns when it has been asked to end.

mod api;
mod context;
mod daemon;
mod dialled;
mod doctor;
mod explain;
mod file;
pub mod gateway;
mod host;
mod instance;
mod log;
mod log_file;
mod machine;
mod machines;
mod name;
mod names;
mod ports;
mod settings;
mod signals;
mod trust;
mod web;

pub use daemon::{DaemonError, Options, run};
pub use log_file::LogFile;
pub use name::{BadName, MachineName};
