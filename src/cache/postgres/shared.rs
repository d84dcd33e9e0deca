//! Holds what the clones of a store share, and sends statements for it: [`Shared`].

use std::{
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
};

use futures_util::TryStreamExt;
use tokio::sync::OnceCell;
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use super::{
    names::Names,
    parts::ValueSize,
    pool::Pool,
    schema::{self, Access},
    statements::Statements,
    tries::Tries,
};
use crate::{Error, ErrorKind, Result};

/// A parameter of a statement, with its type.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

pub(super) struct Shared {
    pub(super) pool: Pool,
    pub(super) names: Names,
    pub(super) statements: Statements,
    pub(super) value_size: ValueSize,
    /// Whether the store was asked to be read-only.
    asked_read_only: bool,
    /// The access that the tables allow, once they were checked.
    access: OnceCell<Access>,
    /// The entries that were put into a table that is only read.
    skipped: AtomicU64,
}

impl Shared {
    pub(super) fn new(pool: Pool, names: Names, asked_read_only: bool) -> Self {
        Self {
            pool,
            statements: Statements::new(&names),
            names,
            value_size: ValueSize::default(),
            asked_read_only,
            access: OnceCell::new(),
            skipped: AtomicU64::new(0),
        }
    }

    /// Checks or creates the tables before the first statement. If that fails or is dropped, the next call tries again.
    pub(super) async fn access(&self) -> Result<Access> {
        let open = || schema::open(&self.pool, &self.names, self.asked_read_only);
        self.access.get_or_try_init(open).await.copied()
    }

    /// Returns `true` if the tables are known to be only read.
    pub(super) fn is_read_only(&self) -> bool {
        self.asked_read_only || self.access.get() == Some(&Access::ReadOnly)
    }

    pub(super) fn skip(&self, entries: usize) {
        self.skipped.fetch_add(entries as u64, Ordering::Relaxed);
    }

    pub(super) fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Sends a statement that returns no rows.
    pub(super) async fn execute(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<()> {
        let mut tries = Tries::default();
        loop {
            let failure = {
                let lease = self.pool.lease(tries.needs_fresh()).await?;
                match lease.run(lease.client().execute_typed(sql, parameters)).await {
                    Ok(_) => return Ok(()),
                    Err(failure) => failure,
                }
            };
            tries.again(&self.pool, failure).await?;
        }
    }

    /// Sends a statement that returns small rows.
    pub(super) async fn rows(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>> {
        let mut tries = Tries::default();
        loop {
            let failure = {
                let lease = self.pool.lease(tries.needs_fresh()).await?;
                let read = async {
                    let parameters = parameters.iter().map(|(value, kind)| (*value, kind.clone()));
                    let rows = pin!(lease.client().query_typed_raw(sql, parameters).await?);
                    rows.try_collect().await
                };
                match lease.run(read).await {
                    Ok(rows) => return Ok(rows),
                    Err(failure) => failure,
                }
            };
            tries.again(&self.pool, failure).await?;
        }
    }

    /// Makes the error of a row that this store cannot have written.
    pub(super) fn damaged(&self, why: &str) -> Error {
        let message = format!("the table {} in {} is damaged: {why}", self.names.shown, self.pool.address());
        Error::new(ErrorKind::Cache, message)
    }
}
