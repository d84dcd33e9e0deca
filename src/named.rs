//! Gives the variants of an enum stable names, both ways: `named!`, and what is said of a name that there is not.

use crate::{Error, ErrorKind};

/// Gives each variant its name, both ways, and lists them for the tests.
macro_rules! named {
    ($(#[$about:meta])+ $type:ident, $what:literal, $($variant:ident = $name:literal),+ $(,)?) => {
        impl $type {
            #[cfg(test)]
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            $(#[$about])+
            ///
            /// A name never changes: files and wire formats hold it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::Error;

            /// Takes a name that [`as_str`](Self::as_str) gives.
            ///
            /// # Errors
            /// [`Config`](crate::ErrorKind::Config) for any other.
            fn from_str(name: &str) -> $crate::Result<Self> {
                match name {
                    $($name => Ok(Self::$variant),)+
                    _ => Err($crate::named::unknown($what, name, [$($name),+].into_iter())),
                }
            }
        }
    };
}

pub(crate) use named;

/// Says that what was given is none of the names that there are.
pub(crate) fn unknown(what: &str, given: &str, names: impl Iterator<Item = &'static str>) -> Error {
    /// Characters of what was given: it may come from anywhere.
    const SHOWN: usize = 64;
    let given: String = given.chars().take(SHOWN).collect();
    let names: Vec<&str> = names.collect();
    Error::new(ErrorKind::Config, format!("{given:?} as {what}: it must be one of {}", names.join(", ")))
}
