//! Keeps the space of vectors in a file beside them, and compares it with what is expected: [`SpaceFile`],
//! [`ExpectedSpace`].

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use docvector_embed::{Space, SpaceId};

use crate::{failure::Failure, unfinished_file::UnfinishedFile};

/// The extension that is appended to the name of an output.
const EXTENSION: &str = ".space";

/// The most bytes of such a file: prompts may be long.
const MAX_BYTES: u64 = 64 << 10;

/// The beginning of the second line.
const BYTES: &str = "bytes=";

/// Returns the path of the file that says which space the vectors in an output lie in.
pub(crate) fn beside(output: &Path) -> PathBuf {
    let mut name = OsString::from(output);
    name.push(EXTENSION);
    name.into()
}

/// The contents of such a file: the space as [`Space::to_text`] writes it, and in a second line how many bytes the file of
/// the vectors has, so that it is not taken for the file beside others.
pub(crate) struct StatedSpace {
    pub(crate) space: Space,
    pub(crate) bytes: Option<u64>,
}

impl StatedSpace {
    /// Reads the file beside an output, or beside that which a link leads to; `None` if there is none.
    pub(crate) fn beside(output: &Path) -> Result<Option<Self>, Failure> {
        let target = output.canonicalize().unwrap_or_else(|_| output.to_owned());
        for path in [beside(output), beside(&target)] {
            match Self::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Failure::with_cause(format!("{} cannot be read", path.display()), error)),
                Ok(stated) => return Ok(Some(stated)),
            }
        }
        Ok(None)
    }

    fn read(path: &Path) -> io::Result<Self> {
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no regular file"));
        }
        let mut content = String::new();
        File::open(path)?.take(MAX_BYTES).read_to_string(&mut content)?;
        let wrong = |error| io::Error::new(io::ErrorKind::InvalidData, format!("it states no space: {error}"));
        let mut lines = content.lines();
        let space = lines.next().unwrap_or_default().parse().map_err(wrong)?;
        let bytes = lines.next().and_then(|line| line.strip_prefix(BYTES)?.parse().ok());
        Ok(Self { space, bytes })
    }
}

/// The file beside an output that is being written.
pub(crate) struct SpaceFile {
    file: UnfinishedFile,
    path: PathBuf,
}

impl SpaceFile {
    /// Opens it before any work. Refuses to replace anything but an older one.
    pub(crate) fn create(output: &Path) -> Result<Self, Failure> {
        let path = beside(output);
        let shown = path.display().to_string();
        if fs::symlink_metadata(&path).is_ok()
            && let Err(error) = StatedSpace::read(&path)
        {
            let message = format!(
                "{shown} would be replaced by the file that states the space of the vectors, and is none: name another \
                 output, or remove it"
            );
            return Err(Failure::with_cause(message, error));
        }
        let file = UnfinishedFile::create(&path).map_err(|error| Failure::writing(&shown, error))?;
        Ok(Self { file, path })
    }

    /// Writes it to the disk, and removes an older one: from now on there is none until [`rename`](Self::rename). A crash
    /// in between leaves vectors without a space, and never those of one beside the name of another.
    pub(crate) fn replace(&mut self, space: &Space, bytes: u64) -> Result<(), Failure> {
        let written = writeln!(self.file, "{}\n{BYTES}{bytes}", space.to_text()).and_then(|()| self.file.sync());
        let removed = written.and_then(|_| match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        removed.map_err(|error| Failure::writing(&self.path.display().to_string(), error))
    }

    /// Gives it its name, once the vectors have theirs.
    pub(crate) fn rename(self) -> Result<(), Failure> {
        let Self { file, path } = self;
        file.rename().map_err(|error| Failure::writing(&path.display().to_string(), error))
    }
}

/// The space that vectors must lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExpectedSpace(SpaceId);

impl FromStr for ExpectedSpace {
    type Err = String;

    /// Reads an id, or finds it in a file that states it or in the one beside vectors.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(id) = text.parse() {
            return Ok(Self(id));
        }
        let path = Path::new(text);
        let path = Some(beside(path)).filter(|beside| beside.is_file()).unwrap_or_else(|| path.to_owned());
        let stated = StatedSpace::read(&path).map_err(|error| {
            format!(
                "it is no id of a space (32 hex digits), and no file that states one or has one beside it ({error})"
            )
        })?;
        Ok(Self(stated.space.id()))
    }
}

impl ExpectedSpace {
    /// Refuses another space.
    pub(crate) fn check(self, space: &Space) -> Result<(), Failure> {
        if space.id() == self.0 {
            return Ok(());
        }
        Err(Failure::new(format!(
            "the model embeds into the space {}, and --expect-space wants {}: nothing was embedded. Vectors of two spaces \
             cannot be compared",
            space.id(),
            self.0
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> Space {
        Space::builder("test", 2).build().expect("valid")
    }

    fn write(output: &Path) -> Result<(), Failure> {
        let mut file = SpaceFile::create(output)?;
        file.replace(&space(), 7)?;
        assert!(!beside(output).exists());
        file.rename()
    }

    #[test]
    fn a_space_is_expected_by_its_id_or_by_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let output = folder.path().join("out.npy");
        fs::write(&output, "vectors").expect("written");
        // The second one replaces the first.
        (0..2).for_each(|_| write(&output).expect("written"));
        let stated = StatedSpace::beside(&output).expect("readable").expect("there");
        assert_eq!((stated.space.id(), stated.bytes), (space().id(), Some(7)));
        assert!(StatedSpace::beside(folder.path()).expect("readable").is_none());
        let path = |path: PathBuf| path.display().to_string();
        for text in [space().id().to_string(), path(beside(&output)), path(output)] {
            let expected: ExpectedSpace = text.parse().expect("a space");
            expected.check(&space()).expect("the same");
            let other = Space::builder("test", 3).build().expect("valid");
            let refused = format!("{:?}", expected.check(&other).expect_err("another"));
            assert!(
                refused.contains(&other.id().to_string()) && refused.contains(&space().id().to_string()),
                "{refused}"
            );
        }
        for text in ["", "1234", "/nowhere/at all"] {
            assert!(text.parse::<ExpectedSpace>().is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_but_an_older_one_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let output = folder.path().join("out.npy");
        fs::write(beside(&output), "a file of the user").expect("written");
        assert!(SpaceFile::create(&output).is_err());
        assert_eq!(fs::read_to_string(beside(&output)).expect("there"), "a file of the user");
        fs::remove_file(beside(&output)).expect("removed");
        fs::create_dir(beside(&output)).expect("made");
        assert!(SpaceFile::create(&output).is_err());
    }
}
