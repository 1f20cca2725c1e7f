//! The folders that a prefix and a library folder stand for, as absolute and normalised paths.

use crate::error::Error;
use std::path::{Component, Path, PathBuf};

/// Where the parts of the library go.
#[derive(Debug)]
pub(super) struct Layout {
    /// Absolute: what a program sees.
    prefix: PathBuf,
    /// Relative to the prefix, such as `lib/x86_64-linux-gnu`.
    libdir: PathBuf,
    /// The folder that a package is made from, below which everything is written.
    stage: Option<PathBuf>,
}

impl Layout {
    /// The folders of `prefix` and `libdir`, written below DESTDIR if it is set.
    ///
    /// # Errors
    ///
    /// [`Error::LibraryFolder`] if `libdir` is not below the prefix.
    pub(super) fn new(prefix: &Path, libdir: &Path) -> Result<Self, Error> {
        let stage = std::env::var_os("DESTDIR").filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let prefix = normalised(prefix)?;
        let whole = normalised(&prefix.join(libdir))?;
        match whole.strip_prefix(&prefix) {
            Ok(libdir) if libdir.components().next().is_some() => Ok(Self { libdir: libdir.to_owned(), prefix, stage }),
            _ => Err(Error::LibraryFolder { libdir: libdir.to_owned(), prefix }),
        }
    }

    /// The prefix, below DESTDIR if it is set.
    pub(super) fn staged_prefix(&self) -> PathBuf {
        match &self.stage {
            Some(stage) => stage.join(self.prefix.strip_prefix("/").unwrap_or(&self.prefix)),
            None => self.prefix.clone(),
        }
    }

    pub(super) fn include_folder(&self) -> PathBuf {
        self.staged_prefix().join("include")
    }

    pub(super) fn library_folder(&self) -> PathBuf {
        self.staged_prefix().join(&self.libdir)
    }

    /// A template with the folders in it: @PREFIX@ for wtacrs.pc, @LIBDIR@, and @UP@, which leads from the library folder
    /// to the prefix.
    pub(super) fn fill(&self, template: &str, relocatable: bool) -> String {
        let up = vec![".."; self.libdir.components().count()].join("/");
        let prefix = match self.prefix.display().to_string() {
            _ if relocatable => format!("${{pcfiledir}}/../{up}"),
            root if root == "/" => String::new(),
            prefix => prefix,
        };
        let libdir = self.libdir.display().to_string();
        template.replace("@PREFIX@", &prefix).replace("@LIBDIR@", &libdir).replace("@UP@", &up)
    }
}

/// An absolute path without `.`, `..` and double slashes. Links are not followed: they may not exist yet.
fn normalised(path: &Path) -> Result<PathBuf, Error> {
    let mut parts = PathBuf::new();
    for component in std::path::absolute(path).map_err(Error::file(path))?.components() {
        match component {
            Component::ParentDir => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(prefix: &str, libdir: &str, relocatable: bool) -> String {
        let layout = Layout::new(Path::new(prefix), Path::new(libdir)).expect("a library folder below the prefix");
        layout.fill("@PREFIX@ @LIBDIR@ @UP@", relocatable)
    }

    #[test]
    fn paths_are_absolute_and_normalised() {
        assert_eq!(filled("/opt//wtacrs/", "lib", false), "/opt/wtacrs lib ..");
        assert_eq!(filled("/opt/./x/../wtacrs", "lib/", false), "/opt/wtacrs lib ..");
        assert_eq!(filled("/", "lib64", false), " lib64 ..");
        let here = std::env::current_dir().expect("a current folder");
        assert_eq!(filled("below", "lib", false), format!("{}/below lib ..", here.display()));
    }

    #[test]
    fn a_triplet_is_one_folder_deeper() {
        assert_eq!(filled("/usr", "lib/x86_64-linux-gnu", false), "/usr lib/x86_64-linux-gnu ../..");
        assert_eq!(filled("/usr", "/usr/lib/x86_64-linux-gnu", false), "/usr lib/x86_64-linux-gnu ../..");
        assert_eq!(filled("/usr", "lib/a", true), "${pcfiledir}/../../.. lib/a ../..");
    }

    #[test]
    fn a_library_folder_lies_below_the_prefix() {
        for libdir in ["", ".", "..", "lib/..", "../lib", "/opt/lib"] {
            let error = Layout::new(Path::new("/usr"), Path::new(libdir)).expect_err("must be refused").to_string();
            assert!(error.contains("below the prefix /usr"), "{error}");
        }
    }
}
