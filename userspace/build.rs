//! Embeds the BPF object, when there is one: `cargo xtask build` makes it, with another compiler. Without
//! it an empty file is embedded, which the loader recognises and reports, so that plain `cargo build`
//! and rust-analyzer work on any machine.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

const OBJECT: &str = "vipd-datapath.o";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=VIPD_BPF_OBJECT");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let object = match env::var_os("VIPD_BPF_OBJECT") {
        Some(path) => PathBuf::from(path),
        None => {
            let dir = target_dir(&out).join("bpf");
            fs::create_dir_all(&dir)?;
            dir.join(OBJECT)
        }
    };
    // A missing file would make cargo run this every time: then its directory is watched, which exists.
    let watched = if object.exists() { &object } else { object.parent().unwrap_or(Path::new(".")) };
    println!("cargo::rerun-if-changed={}", watched.display());
    let bytes = match fs::read(&object) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    fs::write(out.join(OBJECT), bytes)
}

/// `OUT_DIR` is TARGET/[TRIPLE/]PROFILE/build/PACKAGE-HASH/out; cargo marks TARGET with a tag file.
fn target_dir(out: &Path) -> PathBuf {
    out.ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file())
        .or_else(|| out.ancestors().nth(4))
        .unwrap_or(out)
        .to_path_buf()
}
