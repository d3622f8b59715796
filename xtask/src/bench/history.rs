//! A data folder with posts from before: landed, cleaned and answered by a batch run, under
//! topics of their own, as posts are that were brought along from elsewhere.

use std::{fs, path::Path, thread, time::Duration};

use anyhow::{Result, ensure};

use super::{
    batch,
    http::Connection,
    posts::{Posts, USER_ID, landing::Landed, produce::Producer},
};
use crate::server::Server;

/// The first part of the topics' names.
const OF_HISTORY: &str = "history";
const POLL: Duration = Duration::from_millis(20);
/// How often the landing folder's marker is looked for.
const MAX_POLLS: usize = 3000;

/// Fills an empty folder with posts `0..n_posts`. Post `n_posts` is in the log; what a bench
/// posts begins behind it.
pub(super) fn prepare(folder: &Path, binary: &Path, posts: &Posts, n_posts: u64) -> Result<()> {
    // The landing folder must belong to the log, which takes a first record.
    let mut server = Server::start_in(folder, binary, &[("CORKBOARD__LANDING__IDLE_FLUSH_MS", "100")])?;
    let producer = Producer { posts, address: &server.address, user_id: USER_ID, first: n_posts, n_per_request: 1 };
    let mut connection = Connection::open(&server.address)?;
    for number in 0..3 {
        let mut request = Vec::new();
        producer.write(number, &mut request);
        let (status, body) = connection.exchange(&request)?;
        ensure!(status == 200, "a first post is answered with {status}: {}", String::from_utf8_lossy(body));
    }
    let marker = folder.join("landing/corkboard.json");
    let is_there = (0..MAX_POLLS).any(|_| {
        thread::sleep(POLL);
        fs::exists(&marker).unwrap_or(false)
    });
    ensure!(is_there, "the first posts do not land");
    server.stop()?;
    Landed::of(OF_HISTORY).land(posts, 0..n_posts, &folder.join("landing"))?;
    batch::batch_run(binary, folder)?;
    Ok(())
}
