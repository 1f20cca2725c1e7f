//! Files that tests write.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// A new file for one test.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("command");
    fs::create_dir_all(&directory).expect("a writable directory");
    let path = directory.join(name);
    let _ = fs::remove_file(&path);
    path
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
