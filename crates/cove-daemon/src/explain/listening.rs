//! What an attempt that came to nothing means, given who listens at its end.

use super::{ENGINE_DNS, Stop};
use cove_api::Verdict;
use cove_wire::Attempt;
use std::net::SocketAddr;

/// Other ports that are told of at most.
const MAX_TOLD: usize = 8;

/// Why `attempt` at `address` failed, where `listeners` wait at its end. `place` says whose they are.
pub(super) fn judge(attempt: &Attempt, address: SocketAddr, listeners: &[SocketAddr], place: &str) -> Stop {
    // Nobody means the engine's own.
    let there: Vec<SocketAddr> = listeners
        .iter()
        .copied()
        .filter(|listener| listener.ip() != ENGINE_DNS)
        .collect();
    let on_port: Vec<SocketAddr> = there
        .iter()
        .copied()
        .filter(|listener| listener.port() == address.port())
        .collect();
    // Who listens on every IPv6 address most often takes IPv4 as well, and never the other way round.
    let everywhere =
        |listener: &SocketAddr| listener.ip().is_unspecified() && (listener.is_ipv6() || address.is_ipv4());
    let serves = |listener: &&SocketAddr| listener.ip() == address.ip() || everywhere(listener);
    if let Some(listener) = on_port.iter().find(serves) {
        let (verdict, what) = match attempt {
            Attempt::Silence => (Verdict::Silence, "get no answer"),
            _ => (Verdict::Refused, "are refused"),
        };
        return Stop::new(
            verdict,
            format!(
                "a program listens on {listener} in {place}, but connections to it {what}{}",
                words(attempt)
            ),
            format!("look for a firewall's rule in {place}, or for a program that accepts nothing any more"),
        );
    }
    let port = address.port();
    let all = if address.is_ipv4() { "0.0.0.0" } else { "::" };
    let listens_on_all = format!("have it listen on all addresses ({all})");
    if !on_port.is_empty() && on_port.iter().all(|listener| listener.ip().is_loopback()) {
        if address.ip().is_loopback() {
            return Stop::new(
                Verdict::LoopbackOnly,
                format!(
                    "the program listens on {} in {place}, not on {}",
                    list(&on_port),
                    address.ip()
                ),
                format!("have it listen on {} as well", address.ip()),
            );
        }
        return Stop::new(
            Verdict::LoopbackOnly,
            format!(
                "the program listens on {} in {place}, which only {place} itself can reach",
                list(&on_port)
            ),
            format!("{listens_on_all}; most programs call that setting host, bind or listen"),
        );
    }
    if !on_port.is_empty() {
        return Stop::new(
            Verdict::NothingListens,
            format!(
                "on port {port} of {place} a program listens on {} only, not on {}",
                list(&on_port),
                address.ip()
            ),
            listens_on_all,
        );
    }
    if let Attempt::Silence = attempt {
        return Stop::new(
            Verdict::Silence,
            format!("nothing listens on port {port} in {place}, and an attempt gets no answer at all"),
            format!("look for a firewall's rule in {place}, and start the program"),
        );
    }
    let (evidence, advice) = match there.as_slice() {
        [] => (
            format!("nothing listens in {place} at all"),
            "the program has not started yet, or has ended: see its log".to_owned(),
        ),
        others => (
            format!(
                "nothing listens on port {port} in {place}; programs there listen on {}",
                list(others)
            ),
            "is it one of these ports that you mean?".to_owned(),
        ),
    };
    Stop::new(Verdict::NothingListens, evidence, advice)
}

/// What the system said of an attempt, where that says more than the verdict.
fn words(attempt: &Attempt) -> String {
    match attempt {
        Attempt::NoWay(why) | Attempt::Forbidden(why) | Attempt::Failed(why) => {
            format!(" ({})", crate::machine::clean(why))
        }
        Attempt::Taken | Attempt::Refused | Attempt::Silence => String::new(),
    }
}

fn list(listeners: &[SocketAddr]) -> String {
    let shown: Vec<String> = listeners.iter().take(MAX_TOLD).map(ToString::to_string).collect();
    let more = if listeners.len() > MAX_TOLD {
        " and more"
    } else {
        ""
    };
    shown.join(", ") + more
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(attempt: &Attempt, listeners: &[&str]) -> Stop {
        let listeners: Vec<SocketAddr> = listeners.iter().map(|one| one.parse().unwrap()).collect();
        judge(attempt, ([172, 17, 0, 2], 80).into(), &listeners, "`web`")
    }

    #[test]
    fn each_cause_is_told_from_the_others() {
        let refused = &Attempt::Refused;
        for (attempt, listeners, verdict) in [
            (refused, &[][..], Verdict::NothingListens),
            (
                refused,
                &["0.0.0.0:3000", "127.0.0.11:80"],
                Verdict::NothingListens,
            ),
            (refused, &["127.0.0.1:80", "[::1]:80"], Verdict::LoopbackOnly),
            (refused, &["10.0.0.7:80"], Verdict::NothingListens),
            (refused, &["0.0.0.0:80"], Verdict::Refused),
            (refused, &["[::]:80"], Verdict::Refused),
            (&Attempt::Silence, &["172.17.0.2:80"], Verdict::Silence),
            (&Attempt::Silence, &[], Verdict::Silence),
        ] {
            let stop = judged(attempt, listeners);
            assert_eq!(stop.verdict, verdict, "{listeners:?}: {}", stop.evidence);
        }
        let elsewhere = judged(refused, &["0.0.0.0:3000"]);
        assert!(
            elsewhere.evidence.contains("0.0.0.0:3000"),
            "{}",
            elsewhere.evidence
        );
    }

    #[test]
    fn a_family_that_nobody_listens_in_is_no_firewall() {
        let judged = |address: &str, listener: &str| {
            let stop = judge(
                &Attempt::Refused,
                address.parse().unwrap(),
                &[listener.parse().unwrap()],
                "`web`",
            );
            (stop.verdict, stop.evidence, stop.advice)
        };
        let (verdict, evidence, advice) = judged("[fd00::2]:80", "0.0.0.0:80");
        assert_eq!(verdict, Verdict::NothingListens, "{evidence}");
        assert!(
            evidence.contains("0.0.0.0:80") && advice.contains("(::)"),
            "{evidence} {advice}"
        );
        let (verdict, evidence, _) = judged("172.17.0.2:80", "[::]:80");
        assert_eq!(verdict, Verdict::Refused, "{evidence}");
        // Where the way leads to a loopback, all addresses would be more than it takes.
        let (verdict, evidence, advice) = judged("127.0.0.1:80", "[::1]:80");
        assert_eq!(verdict, Verdict::LoopbackOnly, "{evidence}");
        assert!(
            evidence.contains("[::1]:80") && advice.contains("127.0.0.1"),
            "{evidence} {advice}"
        );
    }

    #[test]
    fn a_list_of_ports_has_an_end() {
        let many: Vec<SocketAddr> = (1..100).map(|port| ([0, 0, 0, 0], 1000 + port).into()).collect();
        let stop = judge(
            &Attempt::Refused,
            ([127, 0, 0, 1], 80).into(),
            &many,
            "this computer",
        );
        assert!(stop.evidence.ends_with("and more"), "{}", stop.evidence);
    }
}
