//! Accounts at registries, kept where the Docker client keeps them, so that both know the same ones.
//!
//! ```text
//!                     ┌▶ config.json: which helper is asked for which registry          config
//!  Registries ────────┤
//!                     └▶ docker-credential-NAME get | store | erase | list              helper
//!                                  │ JSON on standard input and output
//!                                  ▼
//!                        serve ──▶ Keychain                                             protocol
//! ```
//!
//! Passwords are in a helper's hands. Those that others have left in the configuration file are read, as the Docker
//! client reads them, and never written there. None of them is part of a command line, an error or what `Debug` prints.
//!
//! The file belongs to the Docker client: it is replaced in one step, with every value that is not changed as it was
//! written. Nobody owns it while it is not being changed, so that it is read again for each question.

mod address;
mod config;
mod helper;
mod protocol;
mod registries;
mod secret;

pub use address::{AddressError, HUB, bare, key_of_address, key_of_image, same_registry};
pub use config::ConfigError;
pub use helper::HelperError;
pub use protocol::{Keychain, KeychainError, serve};
pub use registries::{Account, Accounts, CredentialsError, Registries};
pub use secret::{Credentials, Secret};
