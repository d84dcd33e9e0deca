//! Makes the members of which each asks one server: [`member`].

use std::time::Duration;

use docvector_embed::{
    EmbedderExt, Limits, Payee, Space, Tier,
    provider::OpenAi,
    wrap::{Metered, MetricsSink, Timeout},
};

use crate::support::server_process::DIMENSIONS;

/// The model of both servers.
pub(super) const MODEL: &str = "twin";

/// The names of the servers, as payees and as members.
pub(super) const NAMES: [&str; 2] = ["first", "second"];

/// Texts per request. Larger calls are split.
const A_REQUEST: usize = 5;

pub(super) type Member = Timeout<Metered<OpenAi>>;

/// Makes the member that asks this server, with a time limit for each request.
pub(super) fn member(server: usize, base_url: &str, time: Duration, sink: impl MetricsSink) -> Member {
    let space = Space::builder(MODEL, DIMENSIONS).build().expect("valid");
    let payee = Payee::new(NAMES[server], MODEL, Tier::Standard);
    let builder = OpenAi::builder(MODEL).with_api_key("test").with_base_url(base_url).with_space(space);
    let builder = builder.with_limits(Limits::none().with_texts(A_REQUEST)).with_payee(payee);
    builder.build().expect("valid").metered(sink).timeout(time)
}
