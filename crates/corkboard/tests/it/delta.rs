//! The tables as a stranger reads them: `tests/reference/delta_check.py` opens every Delta
//! table with another reader, computes the views again in DuckDB and cleans the landing
//! objects anew.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{generated, pipeline, posts, process, process::Server};

/// An interpreter with the packages of `tests/reference/requirements.txt`.
pub(crate) fn python() -> PathBuf {
    let python = env::var_os("CORKBOARD_PYTHON");
    python.expect("CORKBOARD_PYTHON is not set: `cargo xtask test` prepares Python and names it").into()
}

/// A file of the reference in Python.
pub(crate) fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference").join(name)
}

/// The tables open, hold what the landing objects hold, and the views follow from them.
pub(crate) fn check(tables: &Path, landing: Option<&Path>, dedup: &str, layers: &str) {
    let mut check = Command::new(python());
    check.env("PYTHONDONTWRITEBYTECODE", "1");
    check.arg(reference("delta_check.py")).arg(tables).args(["--dedup", dedup, "--require", layers]);
    if let Some(landing) = landing {
        check.arg("--landing").arg(landing);
    }
    let output = check.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_tables_of_batch_runs_open_elsewhere_and_agree() {
    let scratch = tempfile::tempdir().unwrap();
    let (landing, tables) = (scratch.path().join("landing"), scratch.path().join("tables"));
    let rows = generated::rows();
    let paths: [(&str, &Path); 2] = [("--landing", &landing), ("--tables", &tables)];
    // In two runs, so that the second appends.
    posts::land(&landing, &rows.clone().map(|lines| lines[..100].to_vec()), 50);
    process::run("batch run", &paths).succeeded();
    check(&tables, Some(&landing), "key", "batch,views");
    posts::land(&landing, &rows, 50);
    process::run("batch run", &paths).succeeded();
    check(&tables, Some(&landing), "key", "batch,views");
    // With little memory, and everything computed anew.
    process::run("batch run --whole --memory 64M --dedup exact", &paths).succeeded();
    check(&tables, Some(&landing), "exact", "batch,views");
}

#[test]
fn the_tables_of_a_pipeline_that_was_killed_open_elsewhere_and_agree() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let config = pipeline::settings(scratch.path(), pipeline::SMALL);
    let start = || Server::start("up", &[("--data", &data), ("--config", &config)]);
    let rows = generated::rows();
    let requests = posts::requests(&rows, 20);
    let (first, second) = requests.split_at(requests.len() / 2);

    let server = start();
    let mut client = server.client();
    for (topic, values) in first {
        client.produce(topic, values).unwrap();
    }
    client.run_task("landing");
    client.run_task("batch");
    for (topic, values) in second {
        client.produce(topic, values).unwrap();
    }
    server.kill();

    let server = start();
    let mut client = server.client();
    generated::run_until_batch_has_all(&mut client);
    for task in ["speed", "compact", "vacuum", "trim"] {
        client.run_task(task);
    }
    server.terminate().succeeded();
    check(&data.join("tables"), Some(&data.join("landing")), "key", "batch,realtime,views");
}
