//! Sends requests over a connection to one server, or to the servers of a cluster: [`Connection`].

use std::time::Duration;

use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cluster_routing::{MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr},
};
use futures_util::{StreamExt, stream::FuturesOrdered};

use super::address::Address;

/// The commands to a cluster that one request sends at the same time. Each goes to the server of its key, alone.
const CLUSTER_COMMANDS: usize = 128;

/// A connection that many calls share. A clone is the same connection.
#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// What is sent. It can be sent again: a request that reached the server twice has the same effect.
pub(super) enum Request<'a> {
    /// One command. In a cluster, the reply is that of the servers of its keys, put together.
    One(Cmd),
    /// Commands, each about one key. The reply is an array of their replies.
    Each(Commands<'a>),
    /// A command for each server that holds entries. The reply is a map from addresses; without a cluster, the address
    /// is empty.
    Servers(Cmd),
    /// A command for the server at this address, from the reply to [`Servers`](Self::Servers).
    At(Cmd, &'a str),
}

/// Commands that are made when they are sent.
pub(super) struct Commands<'a> {
    pub(super) count: usize,
    /// The place of the key among the words of each command.
    pub(super) key_at: usize,
    pub(super) make: &'a (dyn Fn(usize) -> Cmd + Send + Sync),
}

impl Connection {
    /// Connects and logs in.
    pub(super) async fn open(address: &Address, connect: Duration, reply: Duration) -> RedisResult<Self> {
        if address.has_tls {
            name_cryptography();
        }
        if address.is_cluster {
            let client = ClusterClient::builder(address.servers.iter().cloned())
                .connection_timeout(connect)
                .response_timeout(reply)
                .build()?;
            return client.get_async_connection().await.map(Self::Cluster);
        }
        let Some(server) = address.servers.first() else {
            return Err((ErrorKind::InvalidClientConfig, "no server is named").into());
        };
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(connect)).set_response_timeout(Some(reply));
        let client = Client::open(server.clone())?;
        client.get_multiplexed_async_connection_with_config(&config).await.map(Self::One)
    }

    /// Sends a request and returns the reply, or the first error among the replies.
    pub(super) async fn send(&mut self, request: &Request<'_>) -> RedisResult<Value> {
        match (self, request) {
            (Self::One(server), Request::One(command) | Request::At(command, _)) => {
                accepted(server.send_packed_command(command).await?)
            }
            (Self::One(server), Request::Servers(command)) => {
                let reply = accepted(server.send_packed_command(command).await?)?;
                Ok(Value::Map(vec![(Value::BulkString(Vec::new()), reply)]))
            }
            (Self::One(server), Request::Each(commands)) => {
                let mut pipeline = Pipeline::with_capacity(commands.count);
                (0..commands.count).for_each(|at| {
                    pipeline.add_command((commands.make)(at));
                });
                let replies = server.send_packed_commands(&pipeline, 0, commands.count).await?;
                replies.into_iter().map(accepted).collect::<RedisResult<_>>().map(Value::Array)
            }
            (Self::Cluster(cluster), Request::One(command)) => accepted(cluster.req_packed_command(command).await?),
            (Self::Cluster(cluster), Request::Each(commands)) => send_each(cluster, commands).await,
            (Self::Cluster(cluster), Request::Servers(command)) => {
                let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                match cluster.route_command(command.clone(), all).await? {
                    Value::Map(replies) => {
                        let reply = |(address, reply)| Ok((address, accepted(reply)?));
                        replies.into_iter().map(reply).collect::<RedisResult<_>>().map(Value::Map)
                    }
                    other => accepted(other),
                }
            }
            (Self::Cluster(cluster), Request::At(command, address)) => {
                let malformed = || RedisError::from((ErrorKind::Client, "the address of a server has no port"));
                let (host, port) = address.rsplit_once(':').ok_or_else(malformed)?;
                let port = port.parse().map_err(|_| malformed())?;
                // An IPv6 address is written in brackets, which are no part of it.
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let at = RoutingInfo::SingleNode(SingleNodeRoutingInfo::ByAddress { host, port });
                accepted(cluster.route_command(command.clone(), at).await?)
            }
        }
    }
}

/// Sends each command to the server of its key. A pipeline cannot do so: it takes commands of one slot alone, and keys
/// that are hashes have nearly always slots of their own.
async fn send_each(cluster: &ClusterConnection, commands: &Commands<'_>) -> RedisResult<Value> {
    let mut replies = Vec::with_capacity(commands.count);
    let mut sent = FuturesOrdered::new();
    for at in 0..commands.count {
        if sent.len() >= CLUSTER_COMMANDS
            && let Some(reply) = sent.next().await
        {
            replies.push(accepted(reply?)?);
        }
        sent.push_back(send_by_key(cluster.clone(), (commands.make)(at), commands.key_at));
    }
    while let Some(reply) = sent.next().await {
        replies.push(accepted(reply?)?);
    }
    Ok(Value::Array(replies))
}

async fn send_by_key(mut cluster: ClusterConnection, command: Cmd, key_at: usize) -> RedisResult<Value> {
    let route = command.args_iter().nth(key_at).and_then(|word| match word {
        ::redis::Arg::Simple(key) => Some(Route::with_key(key, SlotAddr::Master)),
        _ => None,
    });
    let route = route.ok_or_else(|| RedisError::from((ErrorKind::Client, "the command has no key")))?;
    let by_key = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(route));
    cluster.route_command(command, by_key).await
}

/// Turns the refusal of a server into an error.
fn accepted(reply: Value) -> RedisResult<Value> {
    match reply {
        Value::ServerError(error) => Err(error.into()),
        reply => Ok(reply),
    }
}

/// Names the cryptography of TLS connections, unless the program has named one. The redis crate leaves the choice to
/// rustls, which panics if a program has none, or several and names none.
fn name_cryptography() {
    if ::rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread was faster.
        let _ = ::rustls::crypto::ring::default_provider().install_default();
    }
}
