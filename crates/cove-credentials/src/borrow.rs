//! What whoever starts a Docker client in a machine gives it: its way to the engine, and this computer's accounts.

use crate::{
    lend::{Loan, Rights, lend},
    registries::Registries,
};
use cove_wire::{CLIENTS_CONFIG, CLIENTS_SOCKET};
use std::collections::BTreeMap;
use tokio::io::{AsyncRead, AsyncWrite};

/// This computer's accounts, if there may be any. A configuration that cannot be read is told of by whoever needs it,
/// and nobody without a home has an account.
pub fn lendable() -> Option<Registries> {
    let registries = Registries::from_env().ok()?;
    registries.are_in_use().unwrap_or(true).then_some(registries)
}

/// The same for a client that may do this with them: for one that signs in, it is enough that there is a place for the
/// account.
pub async fn lendable_for(rights: Rights) -> Option<Registries> {
    if rights != Rights::SignIn {
        return lendable();
    }
    let registries = Registries::from_env().ok()?;
    let place = registries.have_a_place().await;
    place.unwrap_or(true).then_some(registries)
}

/// The variables of the client: it reaches the engine by way of the gateway and, where accounts are lendable, has the
/// configuration that names whom to ask for them.
pub fn client_variables(accounts: bool) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::from([("DOCKER_HOST".to_owned(), format!("unix://{CLIENTS_SOCKET}"))]);
    if accounts {
        variables.insert("DOCKER_CONFIG".to_owned(), CLIENTS_CONFIG.to_owned());
    }
    variables
}

/// Lends accounts to the client that is started next, for as long as what this returns lives. `opening` gives the
/// stream of [`lender`](crate::lender)'s program; where that cannot be run, nothing is said, since the client cannot be
/// either. Why the client goes on without an account, or without any, is told to `tell`.
///
/// To be called where tokio's runtime is.
pub async fn borrow<S, E>(
    opening: impl Future<Output = Result<S, E>>,
    registries: Registries,
    rights: Rights,
    tell: impl Fn(String) + Clone + Send + 'static,
) -> Option<Loan>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = opening.await.ok()?;
    let later = tell.clone();
    let of_one = move |problem: String| later(format!("without an account: {problem}"));
    match lend(stream, registries, rights, of_one).await {
        Ok(loan) => Some(loan),
        Err(error) => {
            tell(format!("without this computer's accounts at registries: {error}"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io,
        path::Path,
        sync::{Arc, Mutex},
    };

    #[test]
    fn a_client_has_the_configuration_that_asks_only_where_somebody_answers() {
        let usual = client_variables(false);
        assert_eq!(usual["DOCKER_HOST"], format!("unix://{CLIENTS_SOCKET}"));
        assert!(!usual.contains_key("DOCKER_CONFIG"));
        assert_eq!(client_variables(true)["DOCKER_CONFIG"], CLIENTS_CONFIG);
    }

    /// What is said where the lender's program cannot be started, or ends at once.
    async fn said_of(opening: io::Result<io::Cursor<Vec<u8>>>) -> Vec<String> {
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let tell = move |problem| heard.lock().unwrap().push(problem);
        let registries = Registries::at(Path::new("/nonexistent"), "");
        let loan = borrow(std::future::ready(opening), registries, Rights::Read, tell).await;
        assert!(loan.is_none());
        let said = said.lock().unwrap();
        said.clone()
    }

    #[tokio::test]
    async fn a_client_whose_lender_ends_is_told_that_it_has_no_account() {
        let said = said_of(Ok(io::Cursor::default())).await;
        let [line] = said.as_slice() else {
            panic!("{said:?}");
        };
        assert!(line.starts_with("without this computer's accounts"), "{line}");
        assert!(line.contains("does not pass questions on"), "{line}");
    }

    #[tokio::test]
    async fn of_a_machine_in_which_nothing_runs_the_client_itself_tells() {
        let said = said_of(Err(io::ErrorKind::NotConnected.into())).await;
        assert_eq!(said, Vec::<String>::new());
    }
}
