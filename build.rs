//! Embeds the source revision, so that a running server can say what it was built from.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    // A source archive has no repository of its own, even if it lies inside another one: the
    // revision is then empty and left out of INFO.
    let is_own = git(&root, &["rev-parse", "--show-toplevel"])
        .and_then(|top| Path::new(&top).canonicalize().ok())
        .is_some_and(|top| {
            Path::new(&root)
                .canonicalize()
                .is_ok_and(|root| root == top)
        });
    let mut revision = String::new();
    if is_own {
        revision = git(&root, &["rev-parse", "--short=7", "HEAD"]).unwrap_or_default();
        // Every commit and every checkout adds a line there.
        if let Some(log) = git(&root, &["rev-parse", "--git-path", "logs/HEAD"])
            && Path::new(&root).join(&log).exists()
        {
            println!("cargo:rerun-if-changed={log}");
        }
    }
    println!("cargo:rustc-env=MIDGE_REVISION={revision}");
}

/// What git says, without the line end.
fn git(root: &str, words: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .current_dir(root)
        .args(words)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
