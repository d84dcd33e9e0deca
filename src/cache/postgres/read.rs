//! Looks up keys: [`get`], [`contains`].

use std::{ops::Range, pin::pin};

use futures_util::{StreamExt, TryStreamExt, stream::FuturesUnordered};
use tokio_postgres::types::Type;

use super::{parts::LookUp, shared::Shared, tries::Tries};
use crate::{
    Result,
    cache::{Key, Sink},
    sync::Mutex,
};

/// The most parts of one look-up that are under way at a time, each on a connection of its own.
const MAX_PARTS: usize = 4;

/// The keys of one statement that returns no values.
const KEYS_WITHOUT_VALUES: usize = 8_192;

/// Looks up keys, and hands over the values while they arrive.
pub(super) async fn get(shared: &Shared, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
    let look_up = LookUp::of(keys);
    // All parts run in one task, so nobody waits for this lock.
    let sink = Mutex::new(sink);
    let rows = shared.value_size.rows_per_reply();
    if look_up.len() <= rows {
        return get_part(shared, &look_up, 0..look_up.len(), &sink).await;
    }
    let mut under_way = FuturesUnordered::new();
    let mut next = 0;
    loop {
        while under_way.len() < MAX_PARTS && next < look_up.len() {
            let end = look_up.len().min(next + shared.value_size.rows_per_reply());
            under_way.push(get_part(shared, &look_up, next..end, &sink));
            next = end;
        }
        match under_way.next().await {
            Some(done) => done?,
            None => return Ok(()),
        }
    }
}

/// Looks up a part of the keys by one statement; after a broken connection, by another one for those that are missing.
async fn get_part(shared: &Shared, look_up: &LookUp, part: Range<usize>, sink: &Mutex<&mut Sink<'_>>) -> Result<()> {
    let mut found = vec![false; part.len()];
    let mut tries = Tries::default();
    loop {
        let failure = {
            let missing = part.clone().filter(|number| !found[number - part.start]);
            let keys: Vec<&[u8]> = missing.map(|number| look_up.key(number).as_bytes().as_slice()).collect();
            let lease = shared.pool.lease(tries.needs_fresh()).await?;
            let read = async {
                let parameters = [(&keys, Type::BYTEA_ARRAY)];
                let mut rows = pin!(lease.client().query_typed_raw(&shared.statements.get, parameters).await?);
                let mut largest = 0;
                while let Some(row) = rows.try_next().await? {
                    let (key, value): (&[u8], &[u8]) = (row.try_get(0)?, row.try_get(1)?);
                    let Some(number) = look_up.find(&part, key) else { continue };
                    // Each place is handed over once, whatever the server sends.
                    if std::mem::replace(&mut found[number - part.start], true) {
                        continue;
                    }
                    largest = largest.max(value.len());
                    sink.with(|sink| look_up.places(number).for_each(|place| sink(place, value)));
                }
                Ok(largest)
            };
            match lease.run(read).await {
                Ok(0) => return Ok(()),
                Ok(largest) => {
                    shared.value_size.saw(largest);
                    return Ok(());
                }
                Err(failure) => failure,
            }
        };
        tries.again(&shared.pool, failure).await?;
    }
}

/// Returns whether each key is there.
pub(super) async fn contains(shared: &Shared, keys: &[Key]) -> Result<Vec<bool>> {
    let look_up = LookUp::of(keys);
    let mut is_there = vec![false; keys.len()];
    for start in (0..look_up.len()).step_by(KEYS_WITHOUT_VALUES) {
        let part = start..look_up.len().min(start + KEYS_WITHOUT_VALUES);
        let asked: Vec<&[u8]> = part.clone().map(|number| look_up.key(number).as_bytes().as_slice()).collect();
        let rows = shared.rows(&shared.statements.contains, &[(&asked, Type::BYTEA_ARRAY)]).await?;
        for row in rows {
            let key = row.try_get::<_, &[u8]>(0).map_err(|_| shared.damaged("a key is not bytes"))?;
            if let Some(number) = look_up.find(&part, key) {
                look_up.places(number).for_each(|place| is_there[place] = true);
            }
        }
    }
    Ok(is_there)
}
