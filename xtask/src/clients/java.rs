//! AWS's SDK for Java, which speaks CBOR, over HTTP/2 (its default) and HTTP/1.1.

use std::process::Command;

use anyhow::Result;

use crate::{maven, process, workspace};

const LIST: &str = "tests/clients/java/pom.xml";

pub(super) fn run(url: &str) -> Result<()> {
    let jars = maven::jars("java", LIST)?;
    for protocol in ["default", "http1"] {
        let mut java = Command::new("java");
        // It runs for seconds: compiling its code well would take longer than it saves.
        java.args(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp"]).arg(jars.join("*"));
        process::run(java.arg(workspace::root().join("tests/clients/java/Kinesis.java")).args([url, protocol]))?;
    }
    Ok(())
}
