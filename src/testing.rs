//! Simulates OpenAI's Files and Batches API on loopback, for tests without a key: [`Simulator`].
//!
#![doc = include_str!("docs/simulator.md")]

mod account;
mod api_error;
mod batch;
mod batch_state;
mod bills;
mod body_check;
mod builder;
mod clock;
mod control;
mod counts;
mod fault;
mod files;
mod input_file;
mod line_script;
mod outcome;
mod plan;
mod query;
mod record;
mod reply;
mod request_body;
mod results;
mod routes;
mod server;
mod settings;
mod simulator;
mod state;
mod upload;
mod vectors;

pub use self::{
    batch_state::BatchState,
    bills::Bills,
    builder::SimulatorBuilder,
    counts::Counts,
    fault::{Fault, Route},
    line_script::{Line, LineFate},
    plan::{BatchPlan, FileIdForm, LineOrder},
    record::BatchRecord,
    simulator::Simulator,
};
