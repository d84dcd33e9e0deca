//! Finds out what answers at an endpoint before texts are sent there: [`contact`].

use tokio::time::Instant;

use super::{call, dialect::RemoteDialect, endpoint::Endpoint, info, inner::Inner, known::Asked, sending::Call};
use crate::{
    Batch, Charges, Error, ErrorKind, Lane, Result,
    http::{connections::Connections, redaction},
    provider::service_headers::ServedBy,
    telemetry,
};

/// Returns who answers at an endpoint. If nobody knows it, this call finds out, and its cost is added to `cost`. With
/// `since`, nobody knows it who asked before that moment.
pub(super) async fn contact(
    inner: &Inner,
    endpoint: &Endpoint,
    batch: &Batch<'_>,
    cost: &mut Charges,
    since: Option<Instant>,
) -> Result<ServedBy> {
    let turn = match endpoint.known.ask(batch.deadline(), since).await {
        Asked::Known(server) => return Ok(server),
        Asked::Failed(error) => return Err(error),
        Asked::Late => {
            let message = format!("while another call found out what {} serves", endpoint.origin);
            return Err(Error::new(ErrorKind::DeadlinePassed, message));
        }
        Asked::Mine(turn) => turn,
    };
    let began = Instant::now();
    let found = find_out(inner, endpoint, batch, cost).await;
    match &found {
        // This is the fault of this call alone: another one may have more time.
        Err(error) if error.kind() == ErrorKind::DeadlinePassed => {}
        _ => endpoint.known.end(&found, began),
    }
    if let Err(error) = &found {
        tracing::warn!(
            { telemetry::EMBEDDER } = inner.name,
            { telemetry::SERVER_ADDRESS } = endpoint.embed_url.host_str(),
            { telemetry::ERROR } = %error,
            "an endpoint gets no texts, because it is not known to serve the right model"
        );
    }
    drop(turn);
    found
}

/// Asks the server what it is. If it does not state its space with each reply, its vector of the probe text tells.
async fn find_out(inner: &Inner, endpoint: &Endpoint, batch: &Batch<'_>, cost: &mut Charges) -> Result<ServedBy> {
    let info = info::ask(&inner.http, &endpoint.info_url, &inner.headers, batch.deadline()).await?;
    let own = info.as_ref().and_then(|info| info.own.as_ref());
    own.map_or(Ok(()), |own| own.check(&inner.space))?;
    let server = match (own, inner.dialect, &info) {
        (Some(_), ..) | (None, RemoteDialect::Docvector, None) => ServedBy::Own,
        (None, RemoteDialect::Docvector, Some(_)) => {
            let message = format!(
                "{} is no docvector-embed service: check the URL, or choose the dialect of text-embeddings-inference by \
                 `with_dialect`",
                endpoint.origin
            );
            return Err(Error::new(ErrorKind::Config, message));
        }
        (None, ..) => ServedBy::Other,
    };
    #[cfg(feature = "openai")]
    if let Some(openai) = &endpoint.openai {
        openai.set_served_by(server);
    }
    if let Some(info) = info {
        inner.limits.learn(info.limits);
    }
    if server == ServedBy::Other {
        probe(inner, endpoint, batch, cost).await?;
    }
    Ok(server)
}

/// Embeds the probe text, and compares its vector with the first one.
async fn probe(inner: &Inner, endpoint: &Endpoint, batch: &Batch<'_>, cost: &mut Charges) -> Result<()> {
    let Some(probe) = &inner.probe else { return Ok(()) };
    let texts = [probe.text.as_str()];
    // Somebody may wait for the endpoint, so the probe does not wait behind bulk work.
    let asks = Batch::documents(&texts).with_lane(Lane::Interactive);
    let asks = batch.deadline().map_or(asks, |deadline| asks.with_deadline(deadline));
    let connections = Connections::default();
    let call = Call { inner, endpoint, batch: &asks, server: ServedBy::Other, connections: &connections };
    match call::embed(call).await {
        Ok(rows) => {
            *cost += rows.charges();
            probe.compare(rows.row(0), &endpoint.origin)?;
            endpoint.known.add(&connections.noted());
            Ok(())
        }
        Err(error) => {
            *cost += &error.total_charges();
            // The text at fault is none of the caller's, which the server may know from earlier calls.
            let quoted = |words: &str| batch.texts().iter().any(|text| redaction::quotes(words, text));
            let error = error.without_partial().without_charges().with_bad_texts(Vec::new()).without_words(quoted);
            Err(error.while_doing(format_args!("embedding a probe text at {}", endpoint.origin)))
        }
    }
}
