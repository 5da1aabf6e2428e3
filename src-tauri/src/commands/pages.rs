//! Pages that containers serve on published ports.

use crate::{
    cove::Cove,
    failure::{Answer, Refusal},
    task::Tasks,
};
use cove_engine::{Engine, Place};
use cove_view::TaskStep;
use serde_json::Value;
use std::{io, sync::Arc, time::Duration};
use tauri::{State, ipc::Channel};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

/// How long a page may take to be there. A container that has just been started in an emulated machine takes seconds.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long it may take to answer one request.
const ONCE: Duration = Duration::from_secs(5);
/// How long between two requests.
const AGAIN: Duration = Duration::from_millis(200);
/// So much of an answer is read, in bytes.
const MOST: u64 = 64 * 1024;

/// Waits until a container's page on `port`, which it has published, answers. Where on this computer that is: its port.
#[tauri::command]
pub(crate) async fn wait_for_page(
    cove: State<'_, Arc<Cove>>,
    tasks: State<'_, Tasks>,
    task: u32,
    steps: Channel<Vec<TaskStep>>,
    id: String,
    port: u16,
) -> Answer<u16> {
    let engine = cove.engine();
    tasks
        .run(task, steps, |_| async move {
            match timeout(PATIENCE, answering(&engine, &id, port)).await {
                Ok(answer) => answer,
                Err(_) => Err(Refusal::new(
                    format!("nothing answers on port {port} of the container"),
                    "Its log may say why.",
                )),
            }
        })
        .await
}

/// Asks again and again, as long as the container runs.
async fn answering(engine: &Engine, id: &str, port: u16) -> Answer<u16> {
    loop {
        let container = engine.get(&Place::of(&["containers", id, "json"])).await?;
        let host = published(&container, port)?;
        if answers(host).await {
            return Ok(host);
        }
        sleep(AGAIN).await;
    }
}

/// The port of this computer that a running container's port is published on.
fn published(container: &Value, port: u16) -> Answer<u16> {
    if container["State"]["Running"] != true {
        return Err(Refusal::new("the container has ended", "Its log may say why."));
    }
    let bindings = &container["NetworkSettings"]["Ports"][format!("{port}/tcp")];
    let mut hosts = bindings
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|binding| binding["HostPort"].as_str()?.parse::<u16>().ok());
    hosts.find(|host| *host != 0).ok_or_else(|| {
        Refusal::new(
            format!("the container does not publish its port {port}"),
            "Remove it, and run it again.",
        )
    })
}

/// Whether something speaks HTTP there. The port listens before the container does, so that to connect proves nothing.
async fn answers(port: u16) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(("localhost", port)).await?;
        let request = format!("GET / HTTP/1.0\r\nHost: localhost:{port}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MOST).read_to_end(&mut answer).await?;
        io::Result::Ok(answer.starts_with(b"HTTP/"))
    };
    matches!(timeout(ONCE, asked).await, Ok(Ok(true)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::net::TcpListener;

    fn container(running: bool, ports: &Value) -> Value {
        json!({"State": {"Running": running}, "NetworkSettings": {"Ports": ports}})
    }

    #[test]
    fn a_page_is_where_its_port_is_published_and_nowhere_else() {
        let ports = json!({
            "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "70000"}, {"HostIp": "127.0.0.1", "HostPort": "32768"}],
            "80/udp": [{"HostIp": "", "HostPort": "53"}],
            "443/tcp": null,
        });
        assert_eq!(published(&container(true, &ports), 80).ok(), Some(32768));
        for (running, port, why) in [
            (true, 443, "does not publish its port 443"),
            (true, 53, "does not publish its port 53"),
            (false, 80, "has ended"),
        ] {
            let refusal = published(&container(running, &ports), port).unwrap_err();
            assert!(refusal.0.message.contains(why), "{}", refusal.0.message);
        }
    }

    #[tokio::test]
    async fn a_port_that_listens_and_says_nothing_is_no_page_yet() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for said in [None, Some("HTTP/1.0 200 OK\r\n\r\n")] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 512];
                let count = stream.read(&mut request).await.unwrap();
                assert!(request[..count].starts_with(b"GET / HTTP/1.0\r\n"));
                if let Some(said) = said {
                    stream.write_all(said.as_bytes()).await.unwrap();
                }
            }
        });
        assert!(!answers(port).await);
        assert!(answers(port).await);
        assert!(!answers(port).await, "nobody listens there any more");
    }
}
