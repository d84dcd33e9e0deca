//! Runs `serve`: listens at once, loads the model, serves until a signal or the cloud ends it.

use std::{
    env, fs,
    io::{self, IsTerminal, Write},
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use docvector_embed::server::{Cl100k, Server, ServerBuilder, ServerState};

use crate::{
    cli::serve::{ServeOptions, TokenIdsArg},
    ending,
    failure::Failure,
    log::log_warnings,
    preemption::Cloud,
    progress::Progress,
    serve_model::load,
    signals::Signals,
};

/// How long clients may take to hear of the end after a second signal.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Whether a second signal ended what was under way.
static IS_CUT_SHORT: AtomicBool = AtomicBool::new(false);

const KEYS_VARIABLE: &str = "EMBEDDING_SERVICE_KEYS";

/// Serves the model until it is told to end.
pub(crate) fn run(options: ServeOptions) -> Result<(), Failure> {
    log_warnings();
    raise_descriptor_limit();
    let keys = keys(&options)?;
    if !options.host.is_loopback() && keys.is_empty() {
        say(format_args!(
            "warning: everybody who reaches {} is served, because there are no keys: --api-keys sets them",
            options.host
        ));
    }
    let server = keys.iter().fold(builder(&options), ServerBuilder::with_api_key).build_loading()?;
    let address = SocketAddr::new(options.host, options.port);
    let listener = TcpListener::bind(address).map_err(|error| {
        Failure::with_cause(format!("{address} cannot be listened on: --host and --port choose"), error)
    })?;
    let address = listener.local_addr().unwrap_or(address);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::with_cause("no asynchronous runtime can be started", error))?;
    let done = runtime.block_on(serve(server, listener, address, options));
    // What blocks, such as a model that is being loaded, is not waited for.
    runtime.shutdown_background();
    done
}

async fn serve(
    server: Server,
    listener: TcpListener,
    address: SocketAddr,
    options: ServeOptions,
) -> Result<(), Failure> {
    let signals = Signals::new();
    let mut serving = tokio::spawn({
        let server = server.clone();
        async move { server.serve(listener).await }
    });
    tokio::spawn(ending(server.clone(), signals, options.preemption));
    let opened = tokio::select! {
        opened = open(&server, address, options) => opened,
        // A signal while the model was loaded: nobody waits for it.
        served = &mut serving => return ended(served),
    };
    if opened.is_err() {
        server.fail();
        server.drain();
    }
    let served = serving.await;
    opened?;
    ended(served)
}

/// Says how the service ended.
fn ended(served: Result<io::Result<()>, tokio::task::JoinError>) -> Result<(), Failure> {
    let failed = "the service ended";
    served.map_err(|error| Failure::with_cause(failed, error))?.map_err(|error| Failure::with_cause(failed, error))?;
    if IS_CUT_SHORT.load(Ordering::Relaxed) {
        return Err(Failure::new("ended by a second signal: requests under way were told so"));
    }
    say("ended: what was accepted is answered, or was told that it is not");
    Ok(())
}

/// Loads the model and opens the server.
async fn open(server: &Server, address: SocketAddr, options: ServeOptions) -> Result<(), Failure> {
    let started = Instant::now();
    say(format_args!("loading the model; http://{address}/livez is there"));
    let progress = Progress::waiting("loading ...", io::stderr().is_terminal());
    let runtime = Handle::current();
    let loaded = tokio::task::spawn_blocking(move || load(&options, &runtime)).await;
    let loaded = loaded.map_err(|error| Failure::with_cause("the model cannot be loaded", error))??;
    say(format_args!("loaded in {:.1} s, warming up", started.elapsed().as_secs_f64()));
    loaded.warm_up().await?;
    drop(progress);
    let served = loaded.served;
    let (name, space) = (served.name().to_owned(), served.embedder().spaces()[0].id());
    if server.state() != ServerState::Loading {
        return Ok(());
    }
    server.open(served)?;
    let seconds = started.elapsed().as_secs_f64();
    say(format_args!("ready in {seconds:.1} s: {name} at http://{address}, space {space}"));
    Ok(())
}

/// Waits for the first signal or notice and drains the server; the second signal ends the process at once.
async fn ending(server: Server, mut signals: Signals, preemption: Option<Cloud>) {
    let notice = async {
        match preemption {
            Some(cloud) => cloud.notice().await,
            None => std::future::pending().await,
        }
    };
    let why = tokio::select! {
        why = signals.next() => why,
        () = notice => "the cloud takes the machine away",
    };
    server.drain();
    let under_way = server.requests_under_way();
    // From a thread of its own: a stderr that takes nothing must not keep the second signal waiting.
    std::thread::spawn(move || {
        say(format_args!("{why}: {under_way} requests under way; a second signal ends at once"))
    });
    signals.next().await;
    // Clients are told, as far as that is quick.
    IS_CUT_SHORT.store(true, Ordering::Relaxed);
    server.end();
    tokio::time::sleep(LAST_WORDS).await;
    ending::exit(ending::FAILED)
}

/// Raises the number of files and connections that the process may open to the most that the system permits.
fn raise_descriptor_limit() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let now = getrlimit(Resource::Nofile);
        if now.current < now.maximum || (now.current.is_some() && now.maximum.is_none()) {
            // Without it, the service has fewer connections, and the log says so.
            let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
        }
    }
}

fn builder(options: &ServeOptions) -> ServerBuilder {
    let builder = Server::builder().with_limits(options.limits).with_drain(options.drain.0, options.drain.1);
    let builder = if options.has_page { builder } else { builder.without_page() };
    match options.token_ids {
        None => builder,
        Some(TokenIdsArg::Cl100k) => builder.with_token_ids(Cl100k::default()),
        Some(TokenIdsArg::Model) => builder.with_token_ids_of_model(),
    }
}

/// Reads the keys of clients.
fn keys(options: &ServeOptions) -> Result<Vec<String>, Failure> {
    let (words, place) = match &options.api_keys {
        Some(path) => {
            let shown = path.display();
            let words = fs::read_to_string(path)
                .map_err(|error| Failure::with_cause(format!("the keys cannot be read from {shown}"), error))?;
            (words, shown.to_string())
        }
        None => match env::var(KEYS_VARIABLE) {
            Ok(words) => (words.replace(',', "\n"), KEYS_VARIABLE.to_owned()),
            Err(env::VarError::NotPresent) => return Ok(Vec::new()),
            Err(error) => return Err(Failure::with_cause(format!("{KEYS_VARIABLE} cannot be read"), error)),
        },
    };
    let lines = words.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<String> = lines.map(str::to_owned).collect();
    // A secret that did not arrive must not open the service to everybody.
    if keys.is_empty() {
        return Err(Failure::new(format!(
            "there is no key in {place}: write one per line, or leave it out to serve everybody"
        )));
    }
    if let Some(at) = keys.iter().position(|key| !key.bytes().all(|byte| byte.is_ascii_graphic())) {
        let message =
            format!("key {} in {place} has white space or other characters that a header cannot have", at + 1);
        return Err(Failure::new(message));
    }
    Ok(keys)
}

/// Says something on stderr. A closed stderr is no reason to end a service.
fn say(words: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{words}");
}
