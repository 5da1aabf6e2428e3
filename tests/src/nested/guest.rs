//! A machine of the KVM backend, and the host's end of its agent.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use cove_machine::{Backend as _, Connection, Exit, Kvm, Machine, MachineSpec};
use cove_wire::{
    BootConfig, Call, EngineConfig, FromGuest, FromHost, HEADER_LEN, Hello, Open, Opened, Reply, port,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use super::Place;

/// For anything that a machine does: it is emulated twice.
pub const PATIENCE: Duration = Duration::from_mins(4);

/// A machine under KVM.
pub struct Guest {
    /// The machine.
    pub machine: Box<dyn Machine>,
    control: Option<Connection>,
    last: u64,
}

/// What a machine is made of, with further kernel arguments. Its data disk is made when it is not there.
pub fn spec(place: &Place<'_>, arguments: &[&str]) -> Result<MachineSpec> {
    let at = |name: &str| -> PathBuf { place.image.join(name) };
    let data_disk = place.scratch.join("data");
    if !data_disk.exists() {
        File::create(&data_disk)?.set_len(4 << 30)?;
    }
    Ok(MachineSpec {
        name: "nested".to_owned(),
        directory: place.scratch.join("machine"),
        runtime: place.scratch.join("run"),
        kernel: at("kernel"),
        initramfs: at("initramfs"),
        rootfs: at("rootfs.erofs"),
        data_disk,
        // Two would have to share the one that the outer machine has, which takes twice as long.
        cpus: 1,
        memory_mib: 1024,
        // Mitigations cost much where a processor is emulated.
        kernel_arguments: arguments
            .iter()
            .chain(&["mitigations=off"])
            .map(|argument| (*argument).to_owned())
            .collect(),
        own: Vec::new(),
    })
}

/// Ends the machine that a trial left running, if there is one.
pub async fn end_left_over(place: &Place<'_>) -> Result<()> {
    if let Some(machine) = Kvm::new(None).adopt(&spec(place, &[])?).await? {
        machine.kill().await?;
    }
    Ok(())
}

impl Guest {
    /// Starts a machine.
    pub async fn start(spec: &MachineSpec) -> Result<Self> {
        Ok(Self::of(Kvm::new(None).start(spec).await?))
    }

    /// The guest of a machine that runs already.
    pub fn of(machine: Box<dyn Machine>) -> Self {
        Self {
            machine,
            control: None,
            last: 0,
        }
    }

    /// Waits until the agent answers.
    pub async fn greet(&mut self) -> Result<()> {
        let mut control = self.connect(port::CONTROL).await?;
        send(&mut control, &FromHost::Hello(Hello::new("nested tests"))).await?;
        match self.hear(&mut control).await? {
            FromGuest::Hello(_) => self.control = Some(control),
            other => bail!("the agent greets with {other:?}"),
        }
        Ok(())
    }

    /// Has the agent start the engine, and waits for it.
    pub async fn boot(&mut self) -> Result<()> {
        self.greet().await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        self.call(Call::Boot(Box::new(BootConfig {
            hostname: "nested".to_owned(),
            unix_ns: u64::try_from(now.as_nanos())?,
            foreign_processors: false,
            engine: EngineConfig {
                daemon_json: json!({}),
                environment: BTreeMap::new(),
            },
        })))
        .await
    }

    /// Makes a call that is answered by its having been carried out.
    pub async fn call(&mut self, call: Call) -> Result<()> {
        let mut control = self.control.take().context("the agent was not greeted")?;
        self.last += 1;
        let id = self.last;
        send(&mut control, &FromHost::Request { id, call }).await?;
        let answer = self.hear(&mut control).await?;
        self.control = Some(control);
        match answer {
            FromGuest::Response { id: answered, result } if answered == id => {
                let reply = result?;
                ensure!(reply == Reply::Done, "the agent answers {reply:?}");
                Ok(())
            }
            other => bail!("the agent sent {other:?}"),
        }
    }

    /// Has the agent end the guest.
    pub async fn shut_down(&mut self, reboot: bool) -> Result<()> {
        self.call(Call::Shutdown {
            grace_ms: 1000,
            reboot,
        })
        .await
    }

    /// Asks the engine: status and body of its answer.
    pub async fn engine(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        let mut stream = self.connect(port::STREAM).await?;
        stream.write_all(&cove_wire::encode(&Open::Engine)?).await?;
        let opened: Opened = self.hear(&mut stream).await?;
        opened.result?;
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        let mut answer = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        read.with_context(|| format!("{method} {path} is not answered; {}", self.tail()))??;
        let end = answer
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .context("the engine's answer has no body")?;
        let body = answer.split_off(end + 4);
        let line = String::from_utf8_lossy(&answer);
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((
            status.with_context(|| format!("the engine answers {line:?}"))?,
            body,
        ))
    }

    /// The same with JSON in both directions; anything but success is an error.
    pub async fn engine_json(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = body.to_string();
        let (status, answer) = self
            .engine(method, path, "application/json", body.as_bytes())
            .await?;
        let text = String::from_utf8_lossy(&answer);
        ensure!(status < 300, "{method} {path} is answered {status}: {text}");
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).with_context(|| format!("{method} {path} is answered {text}"))
    }

    /// Waits for the machine to end.
    pub async fn end(&self) -> Result<Exit> {
        let exit = timeout(PATIENCE, self.machine.wait()).await;
        exit.with_context(|| format!("the machine does not end; {}", self.tail()))
    }

    /// Connects to a port of the guest, as soon as somebody listens there.
    async fn connect(&self, port: u32) -> Result<Connection> {
        let attempts = async {
            loop {
                match self.machine.connect(port).await {
                    Ok(connection) => return Ok(connection),
                    Err(error @ cove_machine::MachineError::Ended) => return Err(error),
                    // Until the guest's driver is there, the device turns everybody away.
                    Err(_) => sleep(Duration::from_millis(100)).await,
                }
            }
        };
        match timeout(PATIENCE, attempts).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(_)) => bail!("the machine ended: {:?}", self.machine.wait().await),
            Err(_) => bail!("nobody listens on port {port}; {}", self.tail()),
        }
    }

    async fn hear<T: serde::de::DeserializeOwned>(&self, connection: &mut Connection) -> Result<T> {
        let heard = timeout(PATIENCE, receive(connection)).await;
        heard
            .with_context(|| format!("the guest is silent; {}", self.tail()))?
            .with_context(|| self.tail())
    }

    /// The end of the console and of the machine process's log.
    pub fn tail(&self) -> String {
        let console = self.machine.console();
        let end = |path: PathBuf| {
            let text = std::fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&text[text.len().saturating_sub(1000)..]).into_owned()
        };
        format!(
            "its console ends with: {}; its log with: {}",
            end(console.to_owned()),
            end(console.with_file_name("process.log"))
        )
    }
}

async fn send(connection: &mut Connection, frame: &FromHost) -> Result<()> {
    Ok(connection.write_all(&cove_wire::encode(frame)?).await?)
}

async fn receive<T: serde::de::DeserializeOwned>(connection: &mut Connection) -> Result<T> {
    let mut header = [0; HEADER_LEN];
    let read = connection.read_exact(&mut header).await;
    read.context("the guest sends no frame")?;
    let mut body = vec![0; cove_wire::body_len(header)?];
    let read = connection.read_exact(&mut body).await;
    read.context("the guest's frame ends early")?;
    Ok(cove_wire::decode(&body)?)
}
