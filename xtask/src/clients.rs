//! Clients that other people wrote, against the release binary: programs below `tests/clients` use
//! them as their documentation says, and end with an error at the first claim that does not hold.
//! Versions stand in each language's lock file; what is fetched or built is kept in the cache.
//!
//! All of them but those that say so ask two servers with nothing but the doors and the log: one without
//! keys, and one that asks for keys by TLS, where they also try wrong ones. Both have to stop in good order
//! afterwards.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::entrance::{Doors, Entrance};
use crate::server;

mod certificate;

mod entrance;

mod shell;

mod python;

mod openapi;

mod javascript;

mod go;

mod java;

mod kcl;

mod rust;

mod nginx;

#[derive(Args, Default)]
pub(crate) struct Arguments {
    /// Only these: curl, kafka-bridge, kafka-rest-go, openapi, emulators, boto3, aws-cli, javascript, go, java, nginx, kcl, rust.
    pub(crate) names: Vec<String>,
    /// Also those that take long: kcl to run, rust to build; and openapi makes up many more requests.
    #[arg(long)]
    pub(crate) long: bool,
    /// Run this binary instead of building one.
    #[arg(long)]
    pub(crate) binary: Option<PathBuf>,
}

struct Client {
    name: &'static str,
    /// Whether it runs only if asked for: by `--long` or by its name.
    is_long: bool,
    run: Run,
}

/// Each makes ready what it needs.
enum Run {
    /// Asks the server without keys, and then the one with keys and TLS.
    Asks(fn(&Entrance) -> Result<()>),
    /// Asks the server without keys alone.
    AsksWithoutKeys(fn(&Entrance) -> Result<()>),
    /// Starts servers of its own, and does more if there is time.
    Starts(fn(binary: &Path, is_long: bool) -> Result<()>),
}

impl Client {
    const fn new(name: &'static str, run: fn(&Entrance) -> Result<()>) -> Self {
        Self { name, is_long: false, run: Run::Asks(run) }
    }
}

const CLIENTS: [Client; 13] = [
    Client::new("curl", shell::curl),
    Client::new("kafka-bridge", python::kafka_bridge),
    Client::new("kafka-rest-go", go::kafka_rest),
    Client { name: "openapi", is_long: false, run: Run::Starts(openapi::run) },
    Client::new("emulators", python::emulators),
    Client::new("boto3", python::boto3),
    Client::new("aws-cli", shell::aws_cli),
    Client::new("javascript", javascript::run),
    Client::new("go", go::kinesis),
    Client::new("java", java::run),
    Client { name: "nginx", is_long: false, run: Run::Starts(nginx::run) },
    Client { name: "kcl", is_long: true, run: Run::AsksWithoutKeys(kcl::run) },
    Client { name: "rust", is_long: true, run: Run::Asks(rust::run) },
];

impl Arguments {
    fn chosen(&self) -> Result<Vec<&'static Client>> {
        for name in &self.names {
            ensure!(CLIENTS.iter().any(|client| client.name == name), "there is no client {name:?}");
        }
        let is_chosen = |client: &&Client| match self.names.is_empty() {
            true => self.long || !client.is_long,
            false => self.names.iter().any(|name| name == client.name),
        };
        Ok(CLIENTS.iter().filter(is_chosen).collect())
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let clients = arguments.chosen()?;
    let binary = server::binary(arguments.binary.as_deref())?;
    let [open, guarded] = [Doors::without_keys(&binary)?, Doors::with_keys_and_tls(&binary)?];
    let mut took = Vec::new();
    for client in &clients {
        println!("── client {}", client.name);
        let begin = Instant::now();
        let asked = match client.run {
            Run::Asks(run) => run(&open.entrance).and_then(|()| {
                println!("── client {} with keys and TLS, after {:.1} s", client.name, begin.elapsed().as_secs_f64());
                run(&guarded.entrance)
            }),
            Run::AsksWithoutKeys(run) => run(&open.entrance),
            Run::Starts(run) => run(&binary, arguments.long),
        };
        asked.with_context(|| format!("the client {} found a difference", client.name))?;
        took.push(format!("{} {:.1} s", client.name, begin.elapsed().as_secs_f64()));
    }
    open.stop()?;
    guarded.stop()?;
    println!("clients: {} passed: {}", clients.len(), took.join(", "));
    if !arguments.long && arguments.names.is_empty() {
        let left_out: Vec<_> = CLIENTS.iter().filter(|client| client.is_long).map(|client| client.name).collect();
        println!("left out, because they take long: {}; `cargo xtask test --long` runs them too", left_out.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_chosen_by_name_or_by_length() {
        let chosen = |names: &[&str], long| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let chosen = Arguments { names, long, binary: None }.chosen()?;
            Ok::<Vec<_>, anyhow::Error>(chosen.iter().map(|client| client.name).collect())
        };
        assert_eq!(chosen(&["rust", "go"], false).expect("they are there"), ["go", "rust"]);
        assert_eq!(chosen(&[], true).expect("all").len(), CLIENTS.len());
        let short = chosen(&[], false).expect("all short ones");
        assert!(short.contains(&"java") && !short.contains(&"kcl") && !short.contains(&"rust"));
        assert!(chosen(&["cobol"], false).is_err());
    }
}
