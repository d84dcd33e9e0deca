//! Holds what is known of the server behind an endpoint, and lets one call at a time find out: [`Known`].

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant as StdInstant},
};

use tokio::{
    sync::{Mutex as Turn, MutexGuard},
    time::Instant,
};

use crate::{Error, deadline::until, provider::service_headers::ServedBy, sync::Mutex};

/// How long a program that does not state its space is taken to serve the same model.
const TRUSTED_FOR: Duration = Duration::from_secs(600);

/// How long a call waits for another one that finds out. The future of that call may exist, and never be polled again.
const PATIENCE: Duration = Duration::from_secs(15);

/// The most connections that are remembered. Most of so many are closed already.
const MAX_CONNECTIONS: usize = 1024;

/// The server behind an endpoint, as far as it is known.
///
/// A server that is restarted loses its connections. So a reply over a connection that was there when the model was proved
/// comes from that model, and a reply over a new connection may come from another one.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The kind of the server, and the moment at which the call that found it out began to ask.
    server: Mutex<Option<(ServedBy, Instant)>>,
    /// The connections to the server that was found.
    connections: Mutex<HashSet<SocketAddr>>,
    /// Held by the call that finds out.
    turn: Turn<()>,
    /// The tries to find out that have ended.
    ended: AtomicU64,
    /// How the last try failed.
    error: Mutex<Option<Error>>,
}

/// The answer to a call that wants to know the server.
pub(super) enum Asked<'k> {
    /// The server is known.
    Known(ServedBy),
    /// This call is to find out. Dropping the turn lets another call do it; `None` if it waited too long for the turn.
    Mine(Option<MutexGuard<'k, ()>>),
    /// Another call tried meanwhile, and failed.
    Failed(Error),
    /// The deadline passed.
    Late,
}

impl Known {
    /// Returns who answers, if it is known and not too old.
    pub(super) fn get(&self) -> Option<ServedBy> {
        let (server, since) = self.server.with(|server| *server)?;
        let is_old = server == ServedBy::Other && since.elapsed() >= TRUSTED_FOR;
        (!is_old).then_some(server)
    }

    /// Forgets who answers, after a failure: another program may run there now.
    pub(super) fn forget(&self) {
        self.server.with(|server| *server = None);
        self.connections.with(HashSet::clear);
    }

    /// Whether all of these connections are to the server that was found.
    pub(super) fn has_all(&self, connections: &[SocketAddr]) -> bool {
        self.connections.with(|known| connections.iter().all(|connection| known.contains(connection)))
    }

    /// Notes that these connections are to the server that was found.
    pub(super) fn add(&self, connections: &[SocketAddr]) {
        self.connections.with(|known| {
            if known.len() >= MAX_CONNECTIONS {
                known.clear();
            }
            known.extend(connections);
        });
    }

    /// Returns who answers, if that was asked at this moment or later, or at any time.
    fn get_since(&self, since: Option<Instant>) -> Option<ServedBy> {
        let began = self.server.with(|server| *server).map(|(_, began)| began);
        self.get().filter(|_| since.is_none_or(|since| began.is_some_and(|began| began >= since)))
    }

    /// Returns who answers, or the turn to find out. With `since`, what was found out by an earlier question does not count.
    pub(super) async fn ask(&self, deadline: Option<StdInstant>, since: Option<Instant>) -> Asked<'_> {
        if let Some(server) = self.get_since(since) {
            return Asked::Known(server);
        }
        let before = self.ended.load(Ordering::Acquire);
        let patient_until = Instant::now().checked_add(PATIENCE).map(Instant::into_std);
        let end = [deadline, patient_until].into_iter().flatten().min();
        let turn = until(end, self.turn.lock()).await;
        if turn.is_none() && deadline.is_some() && end == deadline {
            return Asked::Late;
        }
        if let Some(server) = self.get_since(since) {
            return Asked::Known(server);
        }
        if self.ended.load(Ordering::Acquire) != before
            && let Some(error) = self.error.with(|error| error.clone())
        {
            return Asked::Failed(error);
        }
        Asked::Mine(turn)
    }

    /// Notes how a try ended that began at this moment. Those that wait take an error for theirs, and do not pay for it.
    pub(super) fn end(&self, found: &Result<ServedBy, Error>, began: Instant) {
        match found {
            Ok(known) => self.server.with(|server| *server = Some((*known, began))),
            Err(_) => self.forget(),
        }
        self.error.with(|error| {
            *error = found.as_ref().err().map(|found| found.clone().without_partial().without_charges());
        });
        self.ended.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[tokio::test(start_paused = true)]
    async fn trust_ends_unless_each_reply_states_its_space() {
        for (server, after) in [(ServedBy::Own, Some(ServedBy::Own)), (ServedBy::Other, None)] {
            let known = Known::default();
            known.end(&Ok(server), Instant::now());
            tokio::time::advance(TRUSTED_FOR - Duration::from_secs(1)).await;
            assert_eq!(known.get(), Some(server));
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(known.get(), after);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_finds_out_and_the_others_wait_for_it() {
        let known = Known::default();
        let Asked::Mine(Some(turn)) = known.ask(None, None).await else { panic!("it is the first") };
        let deadline = (Instant::now() + Duration::from_secs(1)).into_std();
        assert!(matches!(known.ask(Some(deadline), None).await, Asked::Late));
        let (asked, ()) = tokio::join!(known.ask(None, None), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            known.end(
                &Err(Error::new(ErrorKind::Unavailable, "down").with_usage(crate::Usage::of_unanswered())),
                Instant::now(),
            );
            drop(turn);
        });
        let Asked::Failed(error) = asked else { panic!("the other call failed") };
        assert_eq!((error.kind(), error.usage()), (ErrorKind::Unavailable, crate::Usage::ZERO));
        // A later call tries again, and a turn that nobody ends does not hold up the others for ever.
        let Asked::Mine(Some(turn)) = known.ask(None, None).await else { panic!("nobody tries") };
        assert!(matches!(known.ask(None, None).await, Asked::Mine(None)));
        known.end(&Ok(ServedBy::Own), Instant::now());
        drop(turn);
        assert!(matches!(known.ask(None, None).await, Asked::Known(ServedBy::Own)));
    }

    /// A reply over a new connection asks for a look at the server that began after the reply.
    #[tokio::test(start_paused = true)]
    async fn an_older_look_at_the_server_does_not_vouch_for_a_new_connection() {
        let (known, old, new) =
            (Known::default(), "127.0.0.1:1".parse().expect("valid"), "127.0.0.1:2".parse().expect("valid"));
        known.end(&Ok(ServedBy::Other), Instant::now());
        known.add(&[old]);
        assert!(known.has_all(&[old]) && !known.has_all(&[old, new]) && known.has_all(&[]));
        tokio::time::advance(Duration::from_secs(1)).await;
        let arrived = Instant::now();
        assert!(matches!(known.ask(None, None).await, Asked::Known(ServedBy::Other)));
        assert!(matches!(known.ask(None, Some(arrived)).await, Asked::Mine(Some(_))));
        known.end(&Ok(ServedBy::Other), arrived);
        assert!(matches!(known.ask(None, Some(arrived)).await, Asked::Known(ServedBy::Other)));
        known.forget();
        assert!(!known.has_all(&[old]));
        (0..5000_u16).for_each(|port| known.add(&[SocketAddr::from(([127, 0, 0, 1], port))]));
        assert!(known.connections.with(|known| known.len()) <= MAX_CONNECTIONS);
    }
}
