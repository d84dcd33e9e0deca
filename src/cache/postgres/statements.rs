//! The statements that read and write a table: [`Statements`].
//!
//! All are sent unnamed, with the types of their parameters: one message there, one reply back. A prepared statement
//! would save the server some parsing, but it belongs to one connection, so it fails behind a pooler that changes
//! connections between transactions. Besides, the client writes the parameters of prepared statements to its log.

use super::names::Names;

/// The rows of a table up to which they are counted. The server's own estimate is used for larger tables.
pub(super) const MAX_COUNTED_ROWS: u32 = 1_000_000;

#[derive(Debug)]
pub(super) struct Statements {
    pub(super) get: String,
    pub(super) contains: String,
    pub(super) put: String,
    pub(super) discard: String,
    pub(super) note: String,
    pub(super) notes: String,
    pub(super) scan: String,
    pub(super) estimate: &'static str,
    pub(super) count: String,
    pub(super) stats: String,
}

impl Statements {
    pub(super) fn new(names: &Names) -> Self {
        let Names { entries, spaces, .. } = names;
        Self {
            get: format!("SELECT key, value FROM {entries} WHERE key = ANY($1)"),
            contains: format!("SELECT key FROM {entries} WHERE key = ANY($1)"),
            put: format!(
                "INSERT INTO {entries} (key, value) SELECT * FROM unnest($1::bytea[], $2::bytea[]) \
                 ON CONFLICT (key) DO NOTHING"
            ),
            discard: format!(
                "DELETE FROM {entries} AS t USING unnest($1::bytea[], $2::bytea[]) AS d (key, value) \
                 WHERE t.key = d.key AND t.value = d.value"
            ),
            note: format!("INSERT INTO {spaces} (id, about) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING"),
            notes: format!("SELECT id, about FROM {spaces} ORDER BY id"),
            scan: format!("SELECT key, value FROM {entries} WHERE key > $1 ORDER BY key LIMIT $2"),
            // -1 before the first analysis.
            estimate: "SELECT reltuples::float8 FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1)",
            count: format!("SELECT count(*) FROM (SELECT 1 FROM {entries} LIMIT {MAX_COUNTED_ROWS}) AS counted"),
            // The length of a value is known without reading it.
            stats: format!(
                "SELECT count(*), coalesce(sum(octet_length(value)), 0)::int8, \
                 coalesce(pg_catalog.pg_total_relation_size(pg_catalog.to_regclass($1)), 0) FROM {entries}"
            ),
        }
    }
}
