//! What puts and gets entries: our stores and bare clients ([`Client`]), and several callers that use one at once.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use docvector_embed::{
    async_trait,
    cache::{CacheStore, Entry, Key},
};
use tokio::runtime::Runtime;

use crate::entries::Entries;

/// An error that tasks may return.
pub type Fault = Box<dyn Error + Send + Sync>;

/// Runs a future on this thread, and its tasks on those of the runtime.
pub fn wait<T>(runtime: &Runtime, future: impl Future<Output = Result<T, Fault>>) -> peers::Result<T> {
    runtime.block_on(future).map_err(|fault| fault as Box<dyn Error>)
}

/// What a look-up found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub entries: u64,
    pub bytes: u64,
}

impl Found {
    pub fn add(&mut self, value: &[u8]) {
        self.entries += 1;
        self.bytes += value.len() as u64;
    }
}

/// A side of a comparison. Callers have numbers, by which a side may divide connections among them.
#[async_trait]
pub trait Client: Send + Sync + 'static {
    async fn put(&self, caller: usize, entries: &[Entry<'_>]) -> Result<(), Fault>;
    async fn get(&self, caller: usize, keys: &[Key]) -> Result<Found, Fault>;
}

/// One of our stores, with its own connections.
pub struct Ours<S>(pub S);

#[async_trait]
impl<S: CacheStore> Client for Ours<S> {
    async fn put(&self, _: usize, entries: &[Entry<'_>]) -> Result<(), Fault> {
        Ok(self.0.put(entries).await?)
    }

    async fn get(&self, _: usize, keys: &[Key]) -> Result<Found, Fault> {
        let mut found = Found::default();
        self.0.get(keys, &mut |_, value| found.add(value)).await?;
        Ok(found)
    }
}

/// Puts or gets to be done, in batches, each by the next caller that is free.
#[derive(Clone, Copy)]
pub struct Load {
    pub callers: usize,
    pub batch: u64,
    /// The number of the first entry of a put.
    pub first: u64,
    pub count: u64,
}

impl Load {
    /// Puts entries; returns when each batch was done, in seconds from the start, in order.
    pub async fn put(self, client: &Arc<dyn Client>, entries: &Arc<Entries>) -> Result<Vec<f64>, Fault> {
        let (client, entries) = (client.clone(), entries.clone());
        self.run(move |caller, from, to| {
            let (client, entries) = (client.clone(), entries.clone());
            async move {
                let part = entries.part(self.first + from..self.first + to);
                client.put(caller, &part).await
            }
        })
        .await
    }

    /// Gets entries by their keys, all of which must be there; returns the same.
    pub async fn get(self, client: &Arc<dyn Client>, keys: &Arc<[Key]>, size: usize) -> Result<Vec<f64>, Fault> {
        let (client, keys) = (client.clone(), keys.clone());
        self.run(move |caller, from, to| {
            let (client, keys) = (client.clone(), keys.clone());
            async move {
                let found = client.get(caller, &keys[from as usize..to as usize]).await?;
                let wanted = Found { entries: to - from, bytes: (to - from) * size as u64 };
                if found == wanted { Ok(()) } else { Err(format!("{found:?} instead of {wanted:?}").into()) }
            }
        })
        .await
    }

    async fn run<F>(self, batch: impl Fn(usize, u64, u64) -> F + Clone + Send + 'static) -> Result<Vec<f64>, Fault>
    where
        F: Future<Output = Result<(), Fault>> + Send,
    {
        let next = Arc::new(AtomicU64::new(0));
        let start = Instant::now();
        let callers: Vec<_> = (0..self.callers)
            .map(|caller| {
                let (batch, next) = (batch.clone(), next.clone());
                tokio::spawn(async move {
                    let mut done = Vec::new();
                    loop {
                        let from = next.fetch_add(self.batch, Relaxed);
                        if from >= self.count {
                            return Ok::<_, Fault>(done);
                        }
                        batch(caller, from, self.count.min(from + self.batch)).await?;
                        done.push(start.elapsed().as_secs_f64());
                    }
                })
            })
            .collect();
        let mut done = Vec::new();
        for caller in callers {
            done.extend(caller.await??);
        }
        done.sort_by(f64::total_cmp);
        Ok(done)
    }
}
