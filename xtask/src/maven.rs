//! Jars of a list of dependencies, fetched once: a `pom.xml` in, a folder for Java's class path out.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{cache, process, toolchain::Toolchain};

const JAVA: Toolchain = Toolchain {
    programs: &["java", "javac", "mvn"],
    packages: &["default-jdk-headless", "maven"],
    otherwise: "a JDK of Java 17 or later, and Maven",
};

pub(crate) fn jars(name: &str, list: &str) -> Result<PathBuf> {
    JAVA.ensure()?;
    cache::prepared(name, list, fetch)
}

fn fetch(folder: &Path, list: &Path) -> Result<()> {
    let mut maven = Command::new("mvn");
    maven.args([
        "--batch-mode",
        "-Dstyle.color=never",
        "--quiet",
        "dependency:copy-dependencies",
        "-DincludeScope=runtime",
        "--file",
    ]);
    maven.arg(list).arg(format!("-DoutputDirectory={}", folder.display()));
    process::run(&mut maven)
}
