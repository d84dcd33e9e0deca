//! Defines the arguments of `serve`.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

use clap::{Args, ValueEnum, builder::TypedValueParser};
use docvector_embed::{cache::CacheSpec, server::ServerLimits};

use super::{
    at_least_one::at_least_one, cache::store_parser, model::LoadArgs, model_choice::ModelChoice, openai::OpenAiArgs,
    other_models::refuse_options_of_other_models,
};
use crate::preemption::Cloud;

pub(crate) const SERVE_EXAMPLES: &str = "\
Examples:
  docvector-embed serve --model all-MiniLM-L6-v2
  docvector-embed serve --model DIR --device cuda:0 --host 0.0.0.0 --api-keys keys.txt --preemption gcp
  docvector-embed serve --model openai:text-embedding-3-small --cache cache.sqlite
  curl http://127.0.0.1:8080/embed -d '{\"texts\": [\"hello\"]}'
  curl http://127.0.0.1:8080/v1/embeddings -H 'content-type: application/json' -d '{\"input\": \"hello\"}'

The page http://127.0.0.1:8080/ shows the state, the queue and the throughput; /docs describes all routes.

Keys of clients: one per line in the file of --api-keys (lines that begin with # are comments), or with commas between them
in EMBEDDING_SERVICE_KEYS. Without any, everybody who reaches the port is served.

SIGTERM, SIGINT or a notice of the cloud begins the end: /readyz says 503 at once, new requests are refused after
--drain-delay, and what was accepted is finished within --drain-seconds. A second signal ends at once.

Exit status: 0 after a drain, 1 if something failed, 2 if the command line is wrong.";

const MEGABYTE: usize = 1 << 20;
/// The longest time that may be set, in seconds.
const LONGEST: f64 = 24.0 * 3600.0;

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Folder of the model, as sentence-transformers saves it, or its name in the asset folder, which `setup` fills; or
    /// `openai:NAME`, a model at OpenAI; or `remote:URL`, another service
    #[arg(long, value_name = "DIR|SPEC", value_parser = clap::builder::OsStringValueParser::new().try_map(ModelChoice::read))]
    model: ModelChoice,
    /// Address to listen on; 0.0.0.0 is all of this machine
    #[arg(long, value_name = "ADDRESS", value_parser = host, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// Name of the model for clients [default: that of its folder or of OpenAI]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Another name that requests may have, for clients whose name cannot be changed; may be repeated
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// File of the clients' keys, one per line [default: EMBEDDING_SERVICE_KEYS]
    #[arg(long, value_name = "FILE")]
    api_keys: Option<PathBuf>,
    /// Accept token ids in place of texts, and decode them with this vocabulary
    #[arg(long, value_enum)]
    token_ids: Option<TokenIdsArg>,
    /// Leave out the page for people, /docs and /status
    #[arg(long)]
    no_page: bool,
    /// Store to keep vectors in: a file, created if missing, redis://HOST or postgres://USER@HOST/DATABASE. Its texts are
    /// not embedded again. It stores no texts
    #[arg(long, value_name = "STORE", value_parser = store_parser())]
    cache: Option<CacheSpec>,
    /// Milliseconds that small calls wait for others, to be merged [default: 2 for hosted models; local models need none]
    #[arg(long, value_name = "N")]
    coalesce_ms: Option<u64>,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    openai: OpenAiArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    drain: DrainArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Most tokens of bulk requests that wait; a request for which there is no room gets 429 [default: 1048576]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    queue_tokens: Option<NonZeroUsize>,
    /// The same for interactive requests, such as queries [default: 131072]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    interactive_queue_tokens: Option<NonZeroUsize>,
    /// Most texts of one request [default: 65536]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_texts: Option<NonZeroUsize>,
    /// Most megabytes of one request [default: 64]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_body_mb: Option<NonZeroUsize>,
    /// Most megabytes that all requests together hold [default: 1024]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_memory_mb: Option<NonZeroUsize>,
    /// Most connections [default: 16384]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_connections: Option<NonZeroUsize>,
    /// Most seconds for the vectors of one request, the wait included; later it gets 504 [default: 600]
    #[arg(long, value_name = "N", value_parser = seconds)]
    request_seconds: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Going away")]
struct DrainArgs {
    /// Seconds for which new requests are still accepted, until load balancers have noticed
    #[arg(long, value_name = "N", value_parser = seconds, default_value = "0")]
    drain_delay: Duration,
    /// Seconds, from the signal on, after which requests that are not finished are ended
    #[arg(long, value_name = "N", value_parser = seconds, default_value = "10")]
    drain_seconds: Duration,
    /// Ask this cloud whether it takes the machine away, and go away in time
    #[arg(long, value_enum)]
    preemption: Option<Cloud>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenIdsArg {
    /// OpenAI's cl100k_base, whose ids LangChain's OpenAI client sends by default
    Cl100k,
    /// The model's own
    Model,
}

/// The options of `serve`, with all defaults filled in.
#[derive(Debug)]
pub(crate) struct ServeOptions {
    pub(crate) model: ModelChoice,
    pub(crate) host: IpAddr,
    pub(crate) port: u16,
    pub(crate) name: Option<String>,
    pub(crate) aliases: Vec<String>,
    pub(crate) api_keys: Option<PathBuf>,
    pub(crate) token_ids: Option<TokenIdsArg>,
    pub(crate) has_page: bool,
    pub(crate) cache: Option<CacheSpec>,
    pub(crate) coalesce: Option<Duration>,
    pub(crate) load: LoadArgs,
    pub(crate) openai: OpenAiArgs,
    pub(crate) limits: ServerLimits,
    pub(crate) drain: (Duration, Duration),
    pub(crate) preemption: Option<Cloud>,
}

impl ServeArgs {
    /// Fills in the defaults, and refuses arguments that do not go together.
    pub(crate) fn into_options(self) -> Result<ServeOptions, String> {
        let is_local = matches!(self.model, ModelChoice::Folder(_));
        if let ModelChoice::OpenAiBatch(_) = self.model {
            return Err("batch jobs take hours, so they cannot be served: name openai:NAME".to_owned());
        }
        refuse_options_of_other_models(&self.model, &self.load, &self.openai, None)?;
        if self.token_ids == Some(TokenIdsArg::Model) && !is_local {
            return Err("--token-ids model is for a model in a folder: name cl100k".to_owned());
        }
        let limits = self.limits.filled();
        limits_are_sound(&limits)?;
        let DrainArgs { drain_delay, drain_seconds, preemption } = self.drain;
        if drain_delay >= drain_seconds {
            return Err("--drain-delay must be shorter than --drain-seconds".to_owned());
        }
        Ok(ServeOptions {
            model: self.model,
            host: self.host,
            port: self.port,
            name: self.name,
            aliases: self.alias,
            api_keys: self.api_keys,
            token_ids: self.token_ids,
            has_page: !self.no_page,
            cache: self.cache,
            coalesce: self.coalesce_ms.map(Duration::from_millis),
            load: self.load,
            openai: self.openai,
            limits,
            drain: (drain_delay, drain_seconds),
            preemption,
        })
    }
}

impl LimitArgs {
    fn filled(&self) -> ServerLimits {
        let mut limits = ServerLimits::default();
        let set = |limit: &mut usize, given: Option<NonZeroUsize>, unit: usize| {
            if let Some(given) = given {
                *limit = given.get().saturating_mul(unit);
            }
        };
        set(&mut limits.bulk_tokens, self.queue_tokens, 1);
        set(&mut limits.interactive_tokens, self.interactive_queue_tokens, 1);
        set(&mut limits.texts, self.max_texts, 1);
        set(&mut limits.body_bytes, self.max_body_mb, MEGABYTE);
        set(&mut limits.memory_bytes, self.max_memory_mb, MEGABYTE);
        set(&mut limits.connections, self.max_connections, 1);
        limits.request_time = self.request_seconds.unwrap_or(limits.request_time);
        limits
    }
}

fn limits_are_sound(limits: &ServerLimits) -> Result<(), String> {
    if limits.memory_bytes < limits.body_bytes {
        return Err("--max-memory-mb must be at least --max-body-mb".to_owned());
    }
    if limits.request_time.is_zero() {
        return Err("--request-seconds must be above 0".to_owned());
    }
    Ok(())
}

/// Reads an address of this machine.
fn host(text: &str) -> Result<IpAddr, String> {
    match text {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        text => {
            text.parse().map_err(|_| "must be an IP address of this machine, such as 127.0.0.1 or 0.0.0.0".to_owned())
        }
    }
}

/// Reads a number of seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=LONGEST).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("must be a number of seconds from 0 to {LONGEST}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn options(arguments: &[&str]) -> Result<ServeOptions, String> {
        let all = ["docvector-embed", "serve"].iter().chain(arguments);
        match Cli::try_parse_from(all).map_err(|error| error.to_string())?.command {
            Command::Serve(args) => args.into_options(),
            other => unreachable!("serve was asked for, not {other:?}"),
        }
    }

    #[test]
    fn serves_on_loopback_unless_told() {
        let options = options(&["--model", "m"]).expect("valid");
        assert!(options.host.is_loopback() && options.has_page && options.token_ids.is_none());
        assert_eq!((options.port, options.limits), (8080, ServerLimits::default()));
        assert_eq!(options.drain, (Duration::ZERO, Duration::from_secs(10)));
    }

    #[test]
    fn limits_are_taken_over() {
        let options = options(&[
            "--model",
            "m",
            "--queue-tokens",
            "9",
            "--max-body-mb",
            "2",
            "--max-memory-mb",
            "3",
            "--request-seconds",
            "1.5",
            "--drain-delay",
            "3",
            "--host",
            "::1",
        ])
        .expect("valid");
        let limits = options.limits;
        assert_eq!((limits.bulk_tokens, limits.body_bytes, limits.memory_bytes), (9, 2 << 20, 3 << 20));
        assert_eq!((limits.request_time, options.drain.0), (Duration::from_millis(1500), Duration::from_secs(3)));
    }

    #[test]
    fn refuses_what_cannot_be() {
        for (arguments, words) in [
            (&["--model", "openai-batch:m"][..], "batch jobs take hours"),
            (&["--model", "m", "--dimensions", "3"], "--dimensions is for a model at OpenAI"),
            (&["--model", "openai:m", "--threads", "3"], "--threads is for a model in a folder"),
            (&["--model", "openai:m", "--token-ids", "model"], "--token-ids model is for a model in a folder"),
            (&["--model", "m", "--max-body-mb", "9", "--max-memory-mb", "8"], "--max-memory-mb must be"),
            (&["--model", "m", "--drain-delay", "10"], "--drain-delay must be shorter"),
            (&["--model", "m", "--drain-seconds=-1"], "must be a number of seconds"),
            (&["--model", "m", "--queue-tokens", "0"], "--queue-tokens"),
            (&["--model", "m", "--port", "70000"], "--port"),
        ] {
            let message = options(arguments).expect_err("refused");
            assert!(message.contains(words), "{arguments:?}: {message}");
        }
    }
}
