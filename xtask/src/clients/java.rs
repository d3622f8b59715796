//! AWS's SDK for Java, which speaks CBOR, over HTTP/2 (its default) and HTTP/1.1.

use std::process::Command;

use anyhow::Result;

use super::entrance::Entrance;
use crate::{maven, process, workspace};

const LIST: &str = "tests/clients/java/pom.xml";

pub(super) fn run(entrance: &Entrance) -> Result<()> {
    let jars = maven::jars("java", LIST)?;
    for protocol in entrance.protocols() {
        let mut java = Command::new("java");
        // It runs for seconds: compiling its code well would take longer than it saves.
        java.args(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp"]).arg(jars.join("*"));
        entrance.let_in_java(&mut java)?.arg(workspace::root().join("tests/clients/java/Kinesis.java"));
        process::run(java.args([&entrance.url, *protocol]))?;
    }
    Ok(())
}
