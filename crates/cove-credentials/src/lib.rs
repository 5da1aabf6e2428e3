//! The Docker client's configuration file, and the accounts at registries in it and around it, so that the client and
//! Cove know the same ones.
//!
//! ```text
//!  current_context, use_context ───▶ config.json                                  file
//!                                       ▲ which helper is asked for which registry
//!  Registries ──────────────────────────┤                                         config
//!                                       ▼
//!                    docker-credential-NAME get | store | erase | list            helper
//!                                       │ JSON on standard input and output
//!                                       ▼
//!                             serve ──▶ Keychain                                  protocol
//! ```
//!
//! A Docker client in a machine asks for those that it needs (`lend`), as long as somebody lends them: whoever started
//! it (`borrow`).
//!
//! Passwords are in a helper's hands. Those that others have left in the configuration file are read, as the Docker
//! client reads them, and never written there. None of them is part of a command line, an error or what `Debug` prints.
//!
//! The file belongs to the Docker client: it is replaced in one step, with every value that is not changed as it was
//! written, and with what other programs write meanwhile. Nobody owns it while it is not being changed, so that it is
//! read again for each question.

mod address;
mod borrow;
mod config;
mod file;
mod helper;
mod lend;
mod protocol;
mod registries;
mod secret;

pub use address::{AddressError, HUB, bare, key_of_address, key_of_image, same_registry};
pub use borrow::{borrow, client_variables, lendable, lendable_for};
pub use file::{ConfigError, config_directory, current_context, leave_context, use_context};
pub use helper::HelperError;
pub use lend::{Loan, Rights, lender};
pub use protocol::{Keychain, KeychainError, serve};
pub use registries::{Account, Accounts, CredentialsError, Registries};
pub use secret::{Credentials, Secret};
