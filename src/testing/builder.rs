//! Builds a simulator with other limits, models and counts than OpenAI's: [`SimulatorBuilder`].

use std::sync::Arc;

use super::{
    settings::{Model, Settings},
    simulator::Simulator,
};
use crate::{CountTokens, Result};

/// Builds a [`Simulator`]. Every setting has a default, which is OpenAI's.
///
/// ```
/// use docvector_embed::testing::Simulator;
/// # fn main() -> docvector_embed::Result<()> {
/// let builder = Simulator::builder().with_api_key("sk-test").with_enqueued_tokens(1_000_000);
/// let simulator = builder.with_model("my-model", 64).with_max_requests(100).start()?;
/// assert_eq!(simulator.vector("my-model", 64, "a text").len(), 64);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is started"]
pub struct SimulatorBuilder {
    settings: Settings,
    enqueued_tokens: Option<u64>,
}

impl Simulator {
    /// Returns a builder, for a simulator with other limits, models and counts than OpenAI's.
    pub fn builder() -> SimulatorBuilder {
        SimulatorBuilder::default()
    }
}

impl SimulatorBuilder {
    /// Refuses every other key with a status of 401. Without this, any key is right, but there must be one.
    pub fn with_api_key(mut self, key: impl Into<String>) -> Self {
        self.settings.api_key = Some(key.into());
        self
    }

    /// Adds a model, or gives one another width, at least 1. A request may ask for fewer dimensions.
    ///
    /// OpenAI's three models are always there.
    pub fn with_model(mut self, name: impl Into<String>, dimensions: usize) -> Self {
        let model = Model { name: name.into(), dimensions: dimensions.max(1), shortens: true };
        self.settings.models.retain(|other| other.name != model.name);
        self.settings.models.push(model);
        self
    }

    /// Counts the tokens to bill, and those of the limit of a text. Without this, a text has one token per four bytes,
    /// rounded up.
    ///
    /// The limits of a request and of enqueued tokens are always judged by bytes, as OpenAI does.
    pub fn with_token_counter(mut self, counter: impl CountTokens) -> Self {
        self.settings.counter = Some(Arc::new(counter));
        self
    }

    /// Lets time move by itself, by so many virtual seconds per real second. The default is 0: time moves by
    /// [`advance`](Simulator::advance) alone.
    pub fn with_speed(mut self, speed: f64) -> Self {
        self.settings.speed = speed;
        self
    }

    /// Sets the most bytes of an uploaded file. The default is 200,000,000.
    pub fn with_max_file_bytes(mut self, bytes: u64) -> Self {
        self.settings.file_bytes = bytes;
        self
    }

    /// Sets the most requests, which are lines, of an input file. The default is 50,000.
    pub fn with_max_requests(mut self, requests: usize) -> Self {
        self.settings.requests = requests;
        self
    }

    /// Sets the most texts of an input file, over all its lines. The default is 50,000.
    pub fn with_max_inputs(mut self, inputs: usize) -> Self {
        self.settings.inputs = inputs;
        self
    }

    /// Sets the most enqueued tokens of a model. The default is no limit. See
    /// [`Simulator::set_enqueued_tokens`].
    pub fn with_enqueued_tokens(mut self, tokens: u64) -> Self {
        self.enqueued_tokens = Some(tokens);
        self
    }

    /// Starts the simulator on a free port of 127.0.0.1, in a thread of its own.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if this machine gives no port, thread or temporary folder.
    pub fn start(self) -> Result<Simulator> {
        Simulator::start_with(self.settings, self.enqueued_tokens)
    }
}
