//! Tests `provider::OpenAiBatch` over the simulator: every way in which a batch can go, each with its outcome.
#![cfg(all(feature = "openai", feature = "testing"))]

mod creates;
mod jobs;
mod kills;
mod laws;
mod lines;
mod llmock;
mod memory;
mod polls;
mod processes;
mod support;
mod terminal_states;
