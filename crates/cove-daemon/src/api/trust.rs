//! Handlers of `/v1/certificates`.

use super::{
    Server,
    body::{self, Answer, invalid},
    machines::parameter,
};
use cove_api::{ApiError, Certificate, Event, MachineState, MissingTrust, NewCertificates, Trusted};
use hyper::{Request, body::Incoming};

pub(super) fn list(server: &Server) -> Answer {
    answer(server, server.context.trust.list())
}

pub(super) async fn add(server: &Server, request: &mut Request<Incoming>) -> Result<Answer, ApiError> {
    let NewCertificates { pem } = body::read_json(request).await?;
    let added = server.context.trust.add(&pem)?;
    applied(server).await;
    Ok(answer(server, added))
}

pub(super) async fn remove(server: &Server, request: &Request<Incoming>) -> Result<Answer, ApiError> {
    let fingerprint =
        parameter(request, "fingerprint").ok_or_else(|| invalid("it has to be said which `fingerprint`"))?;
    let removed = server.context.trust.remove(&fingerprint)?;
    applied(server).await;
    Ok(answer(server, vec![removed]))
}

async fn applied(server: &Server) {
    server.machines.reconsider().await;
    server.context.emit(Event::Settings);
}

fn answer(server: &Server, certificates: Vec<Certificate>) -> Answer {
    let missing = server.machines.all().into_iter().filter_map(|handle| {
        let snapshot = handle.snapshot();
        let machine = handle.name().to_string();
        match &snapshot.state {
            MachineState::Running => Some(MissingTrust {
                machine,
                why: snapshot.failed_trust.clone()?,
            }),
            MachineState::Paused => Some(MissingTrust {
                machine,
                why: "it is paused and learns of it when it goes on".into(),
            }),
            _ => None,
        }
    });
    body::json(&Trusted {
        missing: missing.collect(),
        certificates,
    })
}
