//! Says what to do with a server that may forget entries: [`Volatile`].

use std::str::FromStr;

use crate::ParseError;

/// Says what to do if a server may forget entries: because it evicts keys when its memory is full, or because a crash
/// loses what it has not saved.
///
/// ```
/// use docvector_embed::cache::Volatile;
/// # fn main() -> Result<(), docvector_embed::ParseError> {
/// assert_eq!(Volatile::default(), Volatile::Refuse);
/// assert_eq!("warn".parse::<Volatile>()?, Volatile::Warn);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Volatile {
    /// Refuses the server with an error that says what to set. If the server does not tell, a warning is logged.
    #[default]
    Refuse,
    /// Uses the server and logs one warning per store.
    Warn,
    /// Uses the server and says nothing. For a tier in front of a store that keeps everything.
    Allow,
}

impl FromStr for Volatile {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "warn" => Ok(Self::Warn),
            "allow" => Ok(Self::Allow),
            _ => Err(ParseError::new("volatile must be refuse, warn or allow")),
        }
    }
}
