//! Embeds through OpenAI's Batch API, at half the price.

#![allow(dead_code, reason = "the jobs that use these parts come next")]

mod api;
mod batch_object;
mod disk;
mod folder;
mod index_file;
mod job_file;
mod job_id;
mod journal;
mod line_id;
mod locked_file;
mod result_line;
mod rows_file;
mod shard_file;
#[cfg(test)]
mod test_process;
