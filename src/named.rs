//! Gives the variants of an enum stable names, both ways: `named!`, and [`ParseError`] for a name that does not exist.

use std::{error::Error as StdError, fmt};

/// A string that stands for no value of the type it was parsed as.
///
/// `?` turns it into an [`Error`](crate::Error) of kind [`Config`](crate::ErrorKind::Config).
///
/// ```
/// use docvector_embed::Lane;
/// let error = "fast".parse::<Lane>().unwrap_err();
/// assert_eq!(error.to_string(), "\"fast\" as a lane: it must be one of interactive, bulk");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ParseError(Box<str>);

impl ParseError {
    /// Makes an error that says what is wrong with a string, and what it must be.
    pub(crate) fn new(message: impl Into<Box<str>>) -> Self {
        Self(message.into())
    }

    /// Returns what is wrong with the string, and what it must be.
    pub fn message(&self) -> &str {
        &self.0
    }

    /// Makes the error for a string that is none of the names of `what`.
    pub(crate) fn unknown(what: &str, given: &str, names: impl Iterator<Item = &'static str>) -> Self {
        /// The most characters of `given` that are shown: it may come from anywhere, and be long.
        const SHOWN: usize = 64;
        let given: String = given.chars().take(SHOWN).collect();
        let names: Vec<&str> = names.collect();
        Self::new(format!("{given:?} as {what}: it must be one of {}", names.join(", ")))
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for ParseError {}

/// Gives each variant a stable name that is shown, parsed and stored, and lists the variants for the tests.
macro_rules! named {
    ($(#[$about:meta])+ $type:ident, $($names:tt)+) => {
        $crate::named::coded! {
            #[cfg(test)]
            ALL;
            $(#[$about])+
            $type, $($names)+
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

/// Does the same for a type that shows itself in other words.
macro_rules! coded {
    (
        $(#[$all:meta])+ $visible:vis ALL;
        $(#[$about:meta])+ $type:ident, $what:literal, $($variant:ident = $name:literal),+ $(,)?
    ) => {
        impl $type {
            $(#[$all])+
            $visible const ALL: &'static [Self] = &[$(Self::$variant),+];

            $(#[$about])+
            ///
            /// A name never changes: files and wire formats hold it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::ParseError;

            /// Parses a name that [`as_str`](Self::as_str) returns.
            ///
            /// # Errors
            /// [`ParseError`]($crate::ParseError) for any other string. A later version may have more names.
            fn from_str(name: &str) -> Result<Self, $crate::ParseError> {
                match name {
                    $($name => Ok(Self::$variant),)+
                    _ => Err($crate::ParseError::unknown($what, name, [$($name),+].into_iter())),
                }
            }
        }

        $crate::named::stored_by_name!($type, |value| value.as_str());
    };
}

/// Stores a value under its name, as one string, with the feature `serde`.
macro_rules! stored_by_name {
    ($type:ident, $name:expr) => {
        #[cfg(feature = "serde")]
        #[cfg_attr(docvector_docs, doc(cfg(feature = "serde")))]
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let name: fn(&Self) -> _ = $name;
                serializer.collect_str(&name(self))
            }
        }

        #[cfg(feature = "serde")]
        #[cfg_attr(docvector_docs, doc(cfg(feature = "serde")))]
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = <String as serde::Deserialize>::deserialize(deserializer)?;
                name.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use {coded, named, stored_by_name};

/// Checks of a type's names: each is read back, a string that is only similar to a name is not, and the error lists all
/// names.
#[cfg(test)]
pub(crate) fn check_names<T: Copy + PartialEq + fmt::Debug + fmt::Display + std::str::FromStr<Err = ParseError>>(
    all: &[T],
) {
    for value in all {
        assert_eq!(value.to_string().parse::<T>().expect("a name"), *value);
    }
    let first = all[0].to_string();
    for given in ["", "nothing", &first.to_uppercase(), &format!(" {first}"), &format!("{first},{first}")] {
        let error = given.parse::<T>().expect_err(given);
        assert_eq!(crate::Error::from(error.clone()).kind(), crate::ErrorKind::Config);
        assert!(error.message().starts_with(&format!("{given:?} as ")), "{error}");
        assert!(all.iter().all(|value| error.message().contains(&value.to_string())), "{error}");
    }
}
