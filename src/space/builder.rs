//! Makes a [`Space`] from its fields and checks them: [`SpaceBuilder`].

use std::sync::Arc;

use super::{Fields, Normalization, Pooling, Precision, Prompts, Space};
use crate::{Error, ErrorKind, Result};

/// The most dimensions that a space may have: ten times as many as any known model has, and far too few for products to
/// overflow.
const MAX_DIMENSIONS: usize = 65_536;

impl Space {
    /// Returns a builder of a space of this model family with `dimensions` components (1 to 65,536).
    pub fn builder(model: impl Into<String>, dimensions: usize) -> SpaceBuilder {
        SpaceBuilder(Fields {
            model: model.into(),
            dimensions,
            revision: None,
            pooling: Vec::new(),
            normalization: Normalization::None,
            prompts: Prompts::default(),
            precision: Precision::Full,
            label: None,
        })
    }

    /// Returns a builder that begins with this space's fields.
    pub fn to_builder(&self) -> SpaceBuilder {
        SpaceBuilder((*self.0).clone())
    }
}

/// Builds a [`Space`].
///
/// # Default
/// No revision, no known pooling, no normalization, no prompts, full precision, no label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use = "a builder does nothing until it is built"]
pub struct SpaceBuilder(pub(super) Fields);

impl SpaceBuilder {
    /// Sets the revision, or the hash of the weights.
    pub fn with_revision(mut self, revision: impl Into<String>) -> Self {
        self.0.revision = Some(revision.into());
        self
    }

    /// Sets the number of components.
    pub const fn with_dimensions(mut self, dimensions: usize) -> Self {
        self.0.dimensions = dimensions;
        self
    }

    /// Sets the poolings that make one vector from the tokens' vectors. The results of several are concatenated.
    pub fn with_pooling(mut self, pooling: impl IntoIterator<Item = Pooling>) -> Self {
        self.0.pooling = pooling.into_iter().collect();
        self
    }

    /// Sets the scaling of vectors.
    pub const fn with_normalization(mut self, normalization: Normalization) -> Self {
        self.0.normalization = normalization;
        self
    }

    /// Sets the strings put before texts, and who puts them there.
    pub fn with_prompts(mut self, prompts: Prompts) -> Self {
        self.0.prompts = prompts;
        self
    }

    /// Sets the class of arithmetic.
    pub const fn with_precision(mut self, precision: Precision) -> Self {
        self.0.precision = precision;
        self
    }

    /// Sets a name for people. It is not part of the identity.
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.0.label = Some(label.into());
        self
    }

    /// Makes the space and its fingerprint.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the model's name is empty or the dimensions are not 1 to 65,536.
    pub fn build(self) -> Result<Space> {
        if self.0.model.is_empty() {
            return Err(Error::new(ErrorKind::Config, "a vector space without the name of its model: give the name"));
        }
        if !(1..=MAX_DIMENSIONS).contains(&self.0.dimensions) {
            let message = format!("a vector space of {} dimensions: must be 1 to {MAX_DIMENSIONS}", self.0.dimensions);
            return Err(Error::new(ErrorKind::Config, message));
        }
        let id = self.0.fingerprint();
        Ok(Space(Arc::new(self.0), id))
    }
}
