//! Tells the program which compiler has built it, for `pgsluice_build_info`. Nothing else is asked, so that a build from a tarball is as good as one
//! from a repository: the revision is told by whoever builds, in `BUILT_FROM_REVISION`.

use std::{env, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    // A build does not fail for want of a label.
    let said = Command::new(compiler).arg("--version").output().ok();
    let said = said.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    let version = said.split_whitespace().nth(1).unwrap_or("unknown");
    // Not PGSLUICE_...: cargo sets it for tests as well, and the program refuses such a variable that it does not know.
    println!("cargo::rustc-env=BUILT_WITH_RUSTC={version}");
}
