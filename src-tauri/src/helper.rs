//! Containers that the window makes for a moment: to reach into a volume, or to look into another container.
//!
//! ```text
//!  create ──▶ helper ──┬── removed when it is let go of, whether that is well or by a cancelled task
//!                      └── of a window that has ended: removed by the next one that reaches the engine
//! ```
//!
//! Lists leave them out: a label says what each is for, another whose it is.

use crate::{
    alive,
    cove::Cove,
    failure::{Answer, Refusal},
};
use cove_engine::{Engine, EngineError, Place};
use cove_view::{HELPER_LABEL, HELPER_NAME, is_helper};
use serde_json::{Value, json};
use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// An image that every machine has.
pub(crate) const IMAGE: &str = "alpine:latest";
/// The label that says whose helper it is: the name of a window.
const WINDOW: &str = "dev.cove.window";

/// How many helpers this window has made: no two have one name.
static MADE: AtomicU64 = AtomicU64::new(0);

/// What is let go of only when a helper is, however late the engine has made it.
pub(crate) type Held = Option<Arc<dyn Any + Send + Sync>>;

/// A container that is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Helper {
    pub(crate) engine: Engine,
    id: String,
    _held: Held,
}

impl Helper {
    /// Has this engine create one for `purpose`, of [`IMAGE`] and with the rest of `body`, which is the engine's;
    /// nothing where the image is not there. That goes on to its end whatever becomes of who asked: the engine may have
    /// made a container whose id nobody would read otherwise, and which nobody could remove.
    pub(crate) async fn create(
        cove: &Cove,
        engine: &Engine,
        purpose: &str,
        mut body: Value,
        held: Held,
    ) -> Answer<Option<Self>> {
        let (engine, window) = (engine.clone(), cove.window()?);
        let name = format!("{HELPER_NAME}{window}-{}", MADE.fetch_add(1, Ordering::Relaxed));
        body["Image"] = json!(IMAGE);
        body["Labels"] = json!({HELPER_LABEL: purpose, WINDOW: window});
        let place = Place::of(&["containers", "create"]).with("name", &name);
        let creating = tauri::async_runtime::spawn(async move {
            let created = match engine.post(&place, Some(&body)).await {
                Err(error) if error.is_not_found() => return Ok(None),
                created => created?,
            };
            match created["Id"].as_str() {
                Some(id) => Ok(Some(Self {
                    id: id.to_owned(),
                    engine,
                    _held: held,
                })),
                None => Err(Refusal::new(
                    "the engine created a container and did not name it",
                    "",
                )),
            }
        });
        // Where nobody waits any more, what it came to is dropped when it is there, and the container with it.
        creating
            .await
            .map_err(|error| Refusal::because(&error, "Try again."))?
    }

    /// Its id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Removes the helper, and waits for that.
    pub(crate) async fn remove(self) -> Result<(), EngineError> {
        remove(&self.engine, &self.id).await
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let (engine, id) = (self.engine.clone(), std::mem::take(&mut self.id));
        // An engine that has just ended keeps it; it does nothing there.
        tauri::async_runtime::spawn(async move { remove(&engine, &id).await });
    }
}

/// Removes helpers of windows that have ended. Those of windows that live are left to them. One that cannot be removed
/// does not keep the others; the first refusal is what this returns.
pub(crate) async fn clear_left_overs(cove: &Cove, engine: &Engine) -> Answer<()> {
    let place = Place::of(&["containers", "json"])
        .with("all", "true")
        .with("filters", &json!({"label": [HELPER_LABEL]}).to_string());
    let list = engine.get(&place).await?;
    let ours = cove.window().ok();
    let mut refused = None;
    for helper in list.as_array().into_iter().flatten() {
        let window = helper["Labels"][WINDOW].as_str().unwrap_or_default();
        // The engine finds by the label alone, which an image may have, too.
        if !is_helper(helper) || window.is_empty() || ours.as_deref() == Some(window) {
            continue;
        }
        // Whose life is not known may live.
        if let (Some(id), Ok(false)) = (helper["Id"].as_str(), alive::lives(&cove.dirs, window))
            && let Err(error) = remove(engine, id).await
        {
            refused.get_or_insert(error);
        }
    }
    // No window needs them any more; what cannot be removed is tried again the next time.
    let _ = alive::tidy(&cove.dirs);
    refused.map_or(Ok(()), |error| Err(error.into()))
}

async fn remove(engine: &Engine, id: &str) -> Result<(), EngineError> {
    let place = Place::of(&["containers", id])
        .with("force", "true")
        .with("v", "true");
    match engine.delete(&place).await {
        // It was removed and waited for before.
        Err(error) if error.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::task::Report;
    use cove_api::Dirs;
    use std::{fs, time::Duration};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
        sync::{Semaphore, mpsc},
        time::timeout,
    };

    const SOON: Duration = Duration::from_secs(20);

    /// A Cove whose engine answers with this list of containers, makes one once it may, and tells what it is asked.
    struct Scene {
        cove: Cove,
        heard: mpsc::UnboundedReceiver<String>,
        may_create: Arc<Semaphore>,
        _directory: tempfile::TempDir,
    }

    impl Scene {
        fn set(list: impl Fn(&Cove) -> Value) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let cove = Cove::of(Dirs::below(directory.path()), "default".to_owned());
            let socket = cove.dirs.docker_socket(&cove.machine());
            fs::create_dir_all(socket.parent().unwrap()).unwrap();
            let listener = UnixListener::bind(&socket).unwrap();
            let list = list(&cove).to_string();
            let (tell, heard) = mpsc::unbounded_channel();
            let may_create = Arc::new(Semaphore::new(0));
            let gate = Arc::clone(&may_create);
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let (tell, gate, list) = (tell.clone(), Arc::clone(&gate), list.clone());
                    tokio::spawn(async move {
                        let mut request = vec![0; 8192];
                        let count = stream.read(&mut request).await.unwrap();
                        let request = String::from_utf8_lossy(&request[..count]).into_owned();
                        let line = request.lines().next().unwrap_or_default().to_owned();
                        let _ = tell.send(line.clone());
                        let answer = if line.starts_with("POST /containers/create") {
                            gate.acquire().await.unwrap().forget();
                            r#"{"Id":"made"}"#.to_owned()
                        } else if line.starts_with("GET /containers/json") {
                            list
                        } else {
                            "{}".to_owned()
                        };
                        let length = answer.len();
                        let status = if line.starts_with("DELETE /containers/refused") {
                            "500 Internal Server Error"
                        } else {
                            "200 OK"
                        };
                        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{answer}");
                        let _ = stream.write_all(answer.as_bytes()).await;
                    });
                }
            });
            Self {
                cove,
                heard,
                may_create,
                _directory: directory,
            }
        }

        async fn hears(&mut self, begin: &str) -> String {
            let heard = async {
                loop {
                    let line = self.heard.recv().await.unwrap();
                    if line.starts_with(begin) {
                        return line;
                    }
                }
            };
            timeout(SOON, heard).await.unwrap()
        }
    }

    #[tokio::test]
    async fn a_helper_that_is_made_after_its_task_was_cancelled_is_removed_and_then_what_it_was_for() {
        struct Told(mpsc::UnboundedSender<()>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let mut scene = Scene::set(|_| Value::Null);
        let (told, mut let_go) = mpsc::unbounded_channel();
        let held: Held = Some(Arc::new(Told(told)));
        let report = Report::default();
        {
            let (cove, engine) = (&scene.cove, scene.cove.engine());
            let cove = Cove::of(cove.dirs.clone(), cove.machine());
            let making = Helper::writing(&cove, &engine, "data", held, &report);
            tokio::select! {
                _ = making => panic!("it was made"),
                _ = scene.hears("POST /containers/create") => {}
            }
        }
        assert!(let_go.try_recv().is_err(), "let go of before the helper was made");
        scene.may_create.add_permits(1);
        scene.hears("DELETE /containers/made?").await;
        assert_eq!(timeout(SOON, let_go.recv()).await.unwrap(), Some(()));
    }

    #[tokio::test]
    async fn helpers_of_ended_windows_are_cleared_away_past_a_refusal_and_those_of_living_ones_are_not() {
        let named = |id: &str, name: &str, window: Value| {
            let labels = json!({HELPER_LABEL: "volume", WINDOW: window});
            json!({"Id": id, "Names": [name], "Labels": labels})
        };
        let helper = |id: &str, window: Value| named(id, &format!("/{HELPER_NAME}{id}"), window);
        let mut scene = Scene::set(|cove| {
            json!([
                helper("ours", json!(cove.window().ok())),
                helper("refused", json!("gone5678")),
                helper("ended", json!("gone1234")),
                helper("unmarked", Value::Null),
                // Of an image that has the labels.
                named("labelled", "/web", json!("gone1234")),
            ])
        });
        let engine = scene.cove.engine();
        assert!(clear_left_overs(&scene.cove, &engine).await.is_err());
        let mut removed = Vec::new();
        while let Ok(line) = scene.heard.try_recv() {
            if let Some(rest) = line.strip_prefix("DELETE /containers/") {
                removed.extend(rest.split('?').next().map(str::to_owned));
            }
        }
        assert_eq!(removed, ["refused", "ended"]);
    }
}
