//! Lists the cubins that `cargo xtask cubins` has put into `cubins/`, for `src/launch/driver/image.rs`.

use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cubins");
    println!("cargo::rerun-if-changed=ptx/manifest.json");
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let out = env::var("OUT_DIR").expect("cargo sets it");
    let list = list(Path::new(&root)).unwrap_or_default();
    fs::write(Path::new(&out).join("cubins.rs"), format!("&[{list}]")).expect("OUT_DIR is writable");
}

/// A line of source for each cubin, newest first; none if there are none of this PTX.
fn list(root: &Path) -> Option<String> {
    let folder = root.join("cubins");
    let made_of = fs::read_to_string(folder.join("ptx.sha256")).ok()?;
    // The manifest has each file's hash, and no other text so long.
    let is_hash = made_of.trim().len() == 64;
    if !is_hash || !fs::read_to_string(root.join("ptx/manifest.json")).ok()?.contains(made_of.trim()) {
        println!("cargo::warning=cubins of other PTX are left out: run cargo xtask cubins");
        return None;
    }
    let mut found: Vec<(u32, String)> = fs::read_dir(&folder)
        .ok()?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let number = path.file_name()?.to_str()?.strip_prefix("sm_")?.strip_suffix(".cubin.z")?.parse().ok()?;
            Some((number, path.to_str()?.to_owned()))
        })
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    let line = |(number, path): &(u32, String)| {
        format!(
            "/* SAFETY: `cargo xtask cubins` has made it of this PTX. */ unsafe {{ Cubin::new({number}, include_bytes!({path:?})) }},\n"
        )
    };
    Some(found.iter().map(line).collect())
}
