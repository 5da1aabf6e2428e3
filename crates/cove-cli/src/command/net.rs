//! net explain: why something cannot be reached.

use super::Session;
use crate::{args, exit::Exit, output};
use cove_api::{Explanation, Verdict};
use std::process::ExitCode;

pub(super) async fn run(session: &Session, what: args::Net) -> anyhow::Result<ExitCode> {
    let args::Net::Explain { target, from } = what;
    let client = session.daemon().await?;
    let explaining = client.explain(&session.machine, &target, from.as_deref());
    let explanation = session.during("Walking the way", explaining).await?;
    let exit = Exit::from(explanation.verdict);
    if session.json {
        output::json(&explanation)?;
    } else {
        output::line(render(&explanation))?;
    }
    Ok(exit.into())
}

fn render(explanation: &Explanation) -> String {
    let Explanation {
        target,
        from,
        verdict,
        hops,
    } = explanation;
    let widest = hops.iter().map(|hop| hop.station.title().len()).max();
    let width = widest.unwrap_or_default();
    let mut lines = vec![format!("From {from} to {target}")];
    for hop in hops {
        let mark = if hop.passed { "ok  " } else { "stop" };
        let title = hop.station.title();
        lines.push(format!("  {mark}  {title:width$}  {}", hop.evidence));
        if let Some(advice) = &hop.advice {
            lines.push(format!("        {:width$}  hint: {advice}", ""));
        }
    }
    let end = if *verdict == Verdict::Reachable {
        "It can be reached"
    } else {
        "It cannot be reached"
    };
    lines.push(end.to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cove_api::{Hop, Station};

    #[test]
    fn the_hop_where_it_stops_comes_last_with_what_to_do() {
        let hop = |station, passed: bool, evidence: &str| Hop {
            station,
            passed,
            evidence: evidence.into(),
            advice: (!passed).then(|| "start it".into()),
        };
        let text = render(&Explanation {
            target: "localhost:8080".into(),
            from: "this computer".into(),
            verdict: Verdict::NothingListens,
            hops: vec![
                hop(Station::Name, true, "it is 127.0.0.1"),
                hop(Station::Server, false, "nothing listens"),
            ],
        });
        assert_eq!(
            text,
            "From this computer to localhost:8080\n  ok    name    it is 127.0.0.1\n  stop  server  nothing listens\n\
             \x20               hint: start it\nIt cannot be reached"
        );
    }
}
