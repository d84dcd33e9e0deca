//! Runs a server of OpenAI's embeddings API as a process of its own, which a test can kill: [`ServerProcess`].
//!
//! It misbehaves by a seed. Before it answers, it writes to a file what it bills, so that no kill loses that.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpSocket},
    time::sleep,
};

use super::{
    processes::Running,
    stand_in::{self, Connection, Listening, Request, head},
};

/// The number of components of a vector.
pub(crate) const DIMENSIONS: usize = 16;

/// The line of a server that takes connections.
const READY: &str = "ready";

/// A server ends by itself after this time, in case the test that started it was killed.
const LONGEST_LIFE: Duration = Duration::from_secs(1_800);

/// The conduct of a server from its start to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Answers every request.
    Honest,
    /// Answers most requests, and does something else with the others.
    Faulty,
    /// Refuses every request.
    Busy,
    /// Takes every request, and never answers.
    Silent,
}

impl Mood {
    const ALL: [Self; 4] = [Self::Honest, Self::Faulty, Self::Busy, Self::Silent];

    fn of(name: &str) -> Self {
        *Self::ALL.iter().find(|mood| format!("{mood:?}") == name).expect("the name of a mood")
    }

    /// Whether a server of this mood answers at all.
    pub(crate) const fn is_useful(self) -> bool {
        matches!(self, Self::Honest | Self::Faulty)
    }

    /// Draws what happens to a request.
    fn draw(self, random: &mut fastrand::Rng) -> Deed {
        let is_billed = random.bool();
        match self {
            Self::Honest => Deed::Answer,
            Self::Busy => Deed::Refuse([429, 503][random.usize(..2)]),
            Self::Silent => Deed::Hang { is_billed },
            Self::Faulty => match random.u32(..100) {
                0..7 => Deed::Late(Duration::from_millis(random.u64(1..20))),
                7..13 => Deed::Refuse([429, 500, 503][random.usize(..3)]),
                13..15 => Deed::GiveUp { status: [502, 504][random.usize(..2)], is_billed },
                15..18 => Deed::Hang { is_billed },
                18..21 => Deed::Cut,
                21..24 => Deed::HangUp { is_billed },
                24..27 => Deed::RowOfZeros(random.usize(..)),
                27..28 => Deed::RowMissing,
                28..29 => Deed::WebPage,
                29..30 => Deed::HalfRefuse,
                _ => Deed::Answer,
            },
        }
    }
}

/// The server's reaction to one request.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Answer,
    /// Answers after this time.
    Late(Duration),
    /// Refuses with this status, and bills nothing.
    Refuse(u16),
    /// Begins a refusal, and hangs before its end.
    HalfRefuse,
    /// Stops waiting for the model, as a gateway does. The model may have done the work.
    GiveUp {
        status: u16,
        is_billed: bool,
    },
    /// Says nothing until the client goes away.
    Hang {
        is_billed: bool,
    },
    /// Sends half the body, and closes the connection.
    Cut,
    /// Closes the connection without a reply.
    HangUp {
        is_billed: bool,
    },
    /// Answers, but one of the vectors is of zeros. The number chooses it, whatever the number of texts.
    RowOfZeros(usize),
    /// Answers, but for the last row.
    RowMissing,
    /// Answers with a web page.
    WebPage,
}

impl Deed {
    const fn is_billed(self) -> bool {
        match self {
            Self::Refuse(_) | Self::HalfRefuse => false,
            Self::GiveUp { is_billed, .. } | Self::Hang { is_billed } | Self::HangUp { is_billed } => is_billed,
            Self::Answer | Self::Late(_) | Self::Cut | Self::RowOfZeros(_) | Self::RowMissing | Self::WebPage => true,
        }
    }
}

/// A request that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Billed {
    /// The call that its first text names; `None` if the text is not one of [`text_of`].
    pub(crate) call: Option<u64>,
    /// The tokens that were billed; 0 if it was refused.
    pub(crate) tokens: u64,
}

/// Makes a text that tells the server which call it belongs to.
pub(crate) fn text_of(call: u64, number: usize, rest: &str) -> String {
    format!("call {call} text {number} {rest}")
}

/// Returns the call that a text belongs to.
fn call_of(text: &str) -> Option<u64> {
    text.strip_prefix("call ")?.split(' ').next()?.parse().ok()
}

/// A server on a port that stays the same, whose process can be killed and started again. Dropping it kills the process.
pub(crate) struct ServerProcess {
    arguments: [String; 5],
    address: SocketAddr,
    /// Keeps others from the port while the server is down. It does not listen.
    _reserved: Option<TcpSocket>,
    bill: PathBuf,
    model: String,
    starts: usize,
    mood: Mood,
    running: Option<Running>,
    teller: mpsc::Sender<(usize, String)>,
    told: Mutex<mpsc::Receiver<(usize, String)>>,
}

impl ServerProcess {
    /// Chooses a port, and a file in `folder` for the bill. The process will run the test that `arguments` name, which
    /// must pass its words to [`serve`]. Servers of one `model` have the same vectors, whatever name the client gives.
    pub(crate) fn new(arguments: [String; 5], folder: &Path, name: &str, model: &str) -> Self {
        let reserved = TcpSocket::new_v4().expect("a socket");
        reserved.set_reuseaddr(true).expect("it is not bound");
        reserved.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = reserved.local_addr().expect("it is bound");
        // Elsewhere a bound socket keeps the server away, too.
        let reserved = cfg!(target_os = "linux").then_some(reserved);
        let bill = folder.join(name);
        File::create(&bill).expect("the folder can be written to");
        let (teller, told) = mpsc::channel();
        let (model, mood, told) = (model.to_owned(), Mood::Honest, Mutex::new(told));
        Self { arguments, address, _reserved: reserved, bill, model, starts: 0, mood, running: None, teller, told }
    }

    /// Returns the base URL for clients.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Returns the conduct of the process that was started last.
    pub(crate) const fn mood(&self) -> Mood {
        self.mood
    }

    /// Starts the process. One that runs is killed first.
    pub(crate) fn start(&mut self, mood: Mood, seed: u64) {
        self.kill();
        (self.starts, self.mood) = (self.starts + 1, mood);
        let (address, seed, mood) = (self.address.to_string(), seed.to_string(), format!("{mood:?}"));
        let bill = self.bill.to_str().expect("the path is UTF-8");
        let words = [address.as_str(), bill, &self.model, &seed, &mood];
        self.running = Some(Running::start(self.arguments.clone(), &words, self.starts, self.teller.clone()));
    }

    /// Waits until the started process takes connections.
    pub(crate) fn until_ready(&self) {
        let told = self.told.lock().expect("nobody panicked");
        loop {
            let (start, line) = told.recv_timeout(Duration::from_secs(120)).expect("the server starts");
            if start == self.starts && line == READY {
                return;
            }
        }
    }

    /// Kills the process, and returns once it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// Returns the requests that have arrived so far, in any of the processes.
    pub(crate) fn bill(&self) -> Vec<Billed> {
        let text = fs::read_to_string(&self.bill).expect("the bill is there");
        let read = |line: &str| {
            let (call, tokens) = line.split_once(' ').expect("two words");
            Billed { call: call.parse().ok(), tokens: tokens.parse().expect("a number") }
        };
        text.lines().map(read).collect()
    }
}

/// Serves in this process: the task of a test that was started with these words.
pub(crate) async fn serve(words: &[String]) {
    let [address, bill, model, seed, mood] = words else { panic!("not the words of `start`: {words:?}") };
    let bill = File::options().append(true).open(bill).expect("the bill is there");
    let (seed, mood) = (seed.parse().expect("a number"), Mood::of(mood));
    let shared = Shared { bill: Mutex::new(bill), model: model.clone(), seed, mood, seen: Mutex::default() };
    let shared = Arc::new(shared);
    let listener = TcpListener::bind(address.as_str()).await.expect("nobody else listens there");
    let _listening = Listening::on(listener, move |connection| serve_connection(shared.clone(), connection));
    // The line before was begun by the harness.
    println!("\n{READY}");
    sleep(LONGEST_LIFE).await;
}

async fn serve_connection(shared: Arc<Shared>, mut connection: Connection) {
    while let Ok(Some(request)) = connection.request().await {
        if !shared.react(&mut connection, &request).await.unwrap_or(false) || request.is_last() {
            break;
        }
    }
}

struct Shared {
    bill: Mutex<File>,
    model: String,
    seed: u64,
    mood: Mood,
    /// How many requests of each call have arrived.
    seen: Mutex<HashMap<Option<u64>, u64>>,
}

impl Shared {
    /// Answers a request, or does something else, and returns whether the connection can be used again.
    async fn react(&self, connection: &mut Connection, request: &Request) -> io::Result<bool> {
        let texts = request.texts();
        let call = texts.first().and_then(|text| call_of(text));
        let (status, mut reply) = stand_in::respond(request, DIMENSIONS);
        if status != 200 {
            self.write(call, 0);
            connection.reply(status, &[], reply.to_string().as_bytes()).await?;
            return Ok(true);
        }
        let deed = self.draw(call);
        let tokens = reply["usage"]["prompt_tokens"].as_u64().expect("an honest reply counts");
        self.write(call, if deed.is_billed() { tokens } else { 0 });
        let rows = reply["data"].as_array_mut().expect("an honest reply has rows");
        for (row, text) in rows.iter_mut().zip(&texts) {
            row["embedding"] = Value::from(stand_in::in_base64(&vector(&self.model, text)));
        }
        match deed {
            Deed::RowOfZeros(row) => {
                rows[row % texts.len()]["embedding"] = Value::from(stand_in::in_base64(&[0.0; DIMENSIONS]))
            }
            Deed::RowMissing => drop(rows.pop()),
            Deed::Late(time) => sleep(time).await,
            _ => {}
        }
        send(connection, deed, reply.to_string().as_bytes()).await
    }

    /// Writes a line of the bill with one write to the file, which a kill leaves out or leaves whole.
    fn write(&self, call: Option<u64>, tokens: u64) {
        let line = format!("{} {tokens}\n", call.map_or("-".to_owned(), |call| call.to_string()));
        self.bill.lock().expect("nobody panicked").write_all(line.as_bytes()).expect("the bill can be written");
    }

    /// Draws the reaction to the next request of a call. It does not depend on when other calls arrive.
    fn draw(&self, call: Option<u64>) -> Deed {
        let mut seen = self.seen.lock().expect("nobody panicked");
        let times = seen.entry(call).or_default();
        *times += 1;
        self.mood.draw(&mut random(&[self.seed, call.unwrap_or(u64::MAX), *times]))
    }
}

/// Does all of a deed that comes after the bill, and returns whether the connection can be used again.
async fn send(connection: &mut Connection, deed: Deed, reply: &[u8]) -> io::Result<bool> {
    match deed {
        Deed::Answer | Deed::Late(_) | Deed::RowOfZeros(_) | Deed::RowMissing => {
            connection.reply(200, &[("content-type", "application/json")], reply).await?;
        }
        Deed::Refuse(code) => {
            let refusal = stand_in::refusal("As drawn.", "server_error", None, None).to_string();
            connection.reply(code, &[("retry-after-ms", "2")], refusal.as_bytes()).await?;
        }
        Deed::GiveUp { status, .. } => connection.reply(status, &[], b"").await?,
        Deed::WebPage => connection.reply(200, &[("content-type", "text/html")], b"<html></html>").await?,
        Deed::Cut => {
            let length = reply.len().to_string();
            connection.send(&head(200, &[("content-length", length.as_str())])).await?;
            connection.send(&reply[..reply.len() / 2]).await?;
            return Ok(false);
        }
        Deed::HangUp { .. } => return Ok(false),
        Deed::Hang { .. } | Deed::HalfRefuse => {
            if matches!(deed, Deed::HalfRefuse) {
                connection.send(&head(503, &[("content-length", "100")])).await?;
            }
            // A client that waits for a reply sends nothing, so this ends when the client goes away.
            let _ = connection.stream().read_u8().await;
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the vector that the servers of a model have for a text.
pub(crate) fn vector(model: &str, text: &str) -> Vec<f32> {
    stand_in::vector(&format!("{model}: {text}"), DIMENSIONS)
}

/// Returns random numbers that these numbers decide.
pub(crate) fn random(numbers: &[u64]) -> fastrand::Rng {
    let mix = |seed, &number| fastrand::Rng::with_seed(seed ^ number).u64(..);
    fastrand::Rng::with_seed(numbers.iter().fold(0, mix))
}
