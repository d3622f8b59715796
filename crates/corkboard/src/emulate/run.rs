//! The load: posts over real HTTP, at their moments, retried within limits, and measured.
//!
//! The schedule is an open loop: a post is due when its rate or pace says, whether or not the
//! server has answered the ones before it, and latency counts from that moment. A slow answer
//! therefore shows in every post that it kept waiting.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode, header};
use model::Stop;
use tokio::{task::JoinSet, time::Instant};

use crate::emulate::{
    EmulateArgs, Pace,
    api_key::VARIABLE,
    connection::{Connection, Connector, Endpoint, Failure, is_refused},
    draws::Draws,
    live::Live,
    mt19937::Random,
    summary::{Latencies, Summary},
    tables::{N_POSTS, Table, Tables},
    wire::{Format, Rendered, Target, Wire, may_retry, message_of},
};

const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// A server that asks for more patience than this gets this much.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Posts until `options.count` are sent or `stop` is cancelled; then the posts under way are
/// finished. Fails when the options contradict each other, and when nothing could be reached at
/// all; whatever else goes wrong is counted in the summary and told once through `live`.
pub async fn run(options: EmulateArgs, stop: Stop, live: Arc<Live>) -> anyhow::Result<Summary> {
    let plan = Arc::new(Plan::new(&options)?);
    let connector = Connector::new(&plan.endpoint, plan.timeout)?;
    let source = Arc::new(Mutex::new(Source::new(&options)));
    let started = Instant::now();
    // Cancelled as well when one worker finds that all is in vain.
    let stop = stop.child_token();
    let mut workers = JoinSet::new();
    for i in 0..options.connections {
        let worker = Worker {
            connection: Connection::new(
                connector.clone(),
                plan.endpoint.clone(),
                options.api_key.clone(),
                plan.timeout,
            ),
            plan: plan.clone(),
            source: source.clone(),
            live: live.clone(),
            stop: stop.clone(),
            started,
            random: Random::new(i as u64),
            latencies: Latencies::new(),
            errors: BTreeMap::new(),
        };
        workers.spawn(worker.work());
    }
    let mut latencies = Latencies::new();
    let mut errors = BTreeMap::new();
    let mut in_vain = None;
    while let Some(worker) = workers.join_next().await {
        let done = worker.context("a connection's task ended before its work was done")?;
        latencies.add(&done.latencies);
        for (kind, n) in done.errors {
            *errors.entry(kind).or_default() += n;
        }
        if let Err(error) = done.result {
            stop.cancel();
            in_vain.get_or_insert(error);
        }
    }
    match in_vain {
        Some(error) => Err(error),
        None => Ok(Summary::new(live.counters(), errors, started.elapsed(), &latencies)),
    }
}

/// One table to post: where its rows go, and the rows as they stand in a body.
struct Lane {
    table: Table,
    target: Target,
    /// Made when a row is posted for the first time.
    rows: Vec<OnceLock<Rendered>>,
}

/// What all connections share and none changes.
struct Plan {
    endpoint: Endpoint,
    wire: Wire,
    tables: Tables,
    /// In the order in which a post sends them.
    lanes: Vec<Lane>,
    batch: usize,
    retries: u32,
    backoff: Duration,
    timeout: Duration,
}

impl Plan {
    fn new(options: &EmulateArgs) -> anyhow::Result<Self> {
        let endpoint = Endpoint::parse(&options.url)?;
        if options.api_key.is_some() && !endpoint.is_private() {
            bail!(
                "a key would be readable on its way to {}: give an address that begins with https:// (or unset \
                 {VARIABLE})",
                endpoint.host()
            );
        }
        let (wire, tables) = (options.wire(), options.tables());
        wire.check(options.batch, &tables)?;
        if options.pace == Pace::Seeds && options.rate > 0.0 {
            bail!("--pace seeds and --rate contradict each other: give one of them");
        }
        if !options.rate.is_finite() || options.rate < 0.0 {
            bail!("--rate must be 0 or more posts per second");
        }
        if options.batch == 0 || options.connections == 0 {
            bail!("--batch and --connections must be at least 1");
        }
        let lane = |table: &Table| {
            let target = wire.target(&endpoint.base_path, *table, options.batch)?;
            Ok(Lane { table: *table, target, rows: (0..N_POSTS).map(|_| OnceLock::new()).collect() })
        };
        let lanes = tables.iter().map(lane).collect::<anyhow::Result<_>>()?;
        Ok(Self {
            endpoint,
            lanes,
            tables: Tables::generate(),
            wire,
            batch: options.batch,
            retries: options.retries,
            backoff: Duration::from_millis(options.backoff_ms),
            timeout: Duration::from_millis(options.timeout_ms),
        })
    }

    fn rendered(&self, lane: &Lane, row: usize) -> Rendered {
        let render = || {
            let json = match self.wire.format {
                Format::Fastapi => self.tables.pin_for_fastapi(row, self.wire.encoding),
                _ => self.tables.row(lane.table, row, self.wire.encoding),
            };
            self.wire.render(row, &json)
        };
        lane.rows[row].get_or_init(render).clone()
    }
}

/// Which posts are left, and when each is due.
struct Source {
    draws: Draws,
    pace: Pace,
    rate: f64,
    /// None: no end.
    n_left: Option<u64>,
    n_taken: u64,
    slept: Duration,
}

/// Posts that are sent together.
#[derive(Debug, PartialEq)]
struct Work {
    rows: Vec<usize>,
    /// When the last of them happens, from the start; None: at once.
    due: Option<Duration>,
}

impl Source {
    fn new(options: &EmulateArgs) -> Self {
        Self {
            draws: Draws::new(options.draws, options.seed.clone()),
            pace: options.pace,
            rate: options.rate,
            n_left: (options.count > 0).then_some(options.count),
            n_taken: 0,
            slept: Duration::ZERO,
        }
    }

    /// The next posts, at most `n`; None when there are no more.
    fn take(&mut self, n: usize) -> Option<Work> {
        let mut rows = Vec::with_capacity(n);
        while rows.len() < n && self.n_left != Some(0) {
            let Some(draw) = self.draws.next() else { break };
            rows.push(draw.row);
            self.slept += draw.sleep;
            self.n_taken += 1;
            self.n_left = self.n_left.map(|n| n - 1);
        }
        let due = match self.pace {
            Pace::Seeds => Some(self.slept),
            Pace::Rate if self.rate > 0.0 => Some(Duration::from_secs_f64((self.n_taken - 1) as f64 / self.rate)),
            Pace::Rate => None,
        };
        (!rows.is_empty()).then_some(Work { rows, due })
    }
}

/// One connection's work.
struct Worker {
    plan: Arc<Plan>,
    source: Arc<Mutex<Source>>,
    live: Arc<Live>,
    stop: Stop,
    started: Instant,
    connection: Connection,
    random: Random,
    latencies: Latencies,
    errors: BTreeMap<String, u64>,
}

struct Done {
    latencies: Latencies,
    errors: BTreeMap<String, u64>,
    /// An error when going on is useless.
    result: anyhow::Result<()>,
}

/// Why a request has to be sent again, or given up.
struct Trouble {
    kind: String,
    message: String,
    /// What the server asked for.
    retry_after: Option<Duration>,
    nobody_listens: bool,
}

impl Worker {
    async fn work(mut self) -> Done {
        let result = self.post_all().await;
        Done { latencies: self.latencies, errors: self.errors, result }
    }

    async fn post_all(&mut self) -> anyhow::Result<()> {
        while !self.stop.is_cancelled() {
            let work = self.source.lock().unwrap_or_else(PoisonError::into_inner).take(self.plan.batch);
            let Some(Work { rows, due }) = work else { break };
            let Some(since) = self.wait_until(due).await else { break };
            self.post(&rows, since).await?;
        }
        Ok(())
    }

    /// Waits for the moment from which latency counts; None when the stop comes first. A post
    /// that was due while this connection was busy counts from when it was due; one that was
    /// waited for counts from the waking, which is late by the timer's grain and by nothing that
    /// the server did.
    async fn wait_until(&mut self, due: Option<Duration>) -> Option<Instant> {
        let Some(due) = due.map(|due| self.started + due) else { return Some(Instant::now()) };
        if due <= Instant::now() {
            return Some(due);
        }
        tokio::select! {
            () = tokio::time::sleep_until(due) => Some(Instant::now()),
            () = self.stop.cancelled() => None,
        }
    }

    /// Sends the rows of each table in turn, awaiting each answer.
    async fn post(&mut self, rows: &[usize], since: Instant) -> anyhow::Result<()> {
        let plan = self.plan.clone();
        let mut since = since;
        let mut all_taken = true;
        for lane in &plan.lanes {
            all_taken &= self.deliver(&plan, lane, rows, since).await?;
            since = Instant::now();
        }
        if all_taken {
            self.live.add_posts(rows.len());
        }
        Ok(())
    }

    /// Brings these rows to the server, or gives them up; true when all were taken.
    async fn deliver(&mut self, plan: &Plan, lane: &Lane, rows: &[usize], since: Instant) -> anyhow::Result<bool> {
        let mut left: Vec<Rendered> = rows.iter().map(|row| plan.rendered(lane, *row)).collect();
        let mut all_taken = true;
        for attempt in 0.. {
            let body = plan.wire.body(lane.table, plan.batch, left.iter(), &mut self.random);
            self.live.add_request(body.len());
            let trouble = match self.connection.exchange(&lane.target, body).await {
                Ok(answer) if answer.status.is_success() => {
                    let (again, trouble) = self.settle(&plan.wire, left, &answer.body, since, &mut all_taken);
                    left = again;
                    let Some(trouble) = trouble else { return Ok(all_taken) };
                    trouble
                }
                Ok(answer) => {
                    let trouble = Trouble::refusal(answer.status, &answer.headers, &answer.body);
                    if !may_retry(answer.status) {
                        self.give_up(left.len(), &trouble);
                        return Ok(false);
                    }
                    trouble
                }
                Err(failure) => Trouble::failure(&failure),
            };
            if trouble.nobody_listens {
                self.live.notice("nobody listens", || {
                    let (host, n) = (plan.endpoint.host(), plan.retries);
                    format!("nothing listens on {host}: start `corkboard up` first (trying up to {n} more times)")
                });
            }
            if attempt >= plan.retries || !self.wait_to_retry(plan, attempt, trouble.retry_after).await {
                self.give_up(left.len(), &trouble);
                return self.is_in_vain(plan, &trouble).map_or(Ok(false), Err);
            }
            self.live.add_retry();
        }
        unreachable!("the attempts end at the limit above")
    }

    /// Counts what a 2xx answer took, and gives up what it will never take; returns what has to be sent again, and why.
    fn settle(
        &mut self,
        wire: &Wire,
        sent: Vec<Rendered>,
        answer: &[u8],
        since: Instant,
        all_taken: &mut bool,
    ) -> (Vec<Rendered>, Option<Trouble>) {
        let refused = wire.refused(sent.len(), answer);
        if refused.len() < sent.len() {
            self.latencies.record(since.elapsed());
        }
        self.live.add_records(sent.len() - refused.len());
        let mut again = Vec::new();
        let mut trouble = None;
        for refused in refused {
            let reason = Trouble::of_record(refused.kind, refused.message);
            if refused.may_retry {
                again.push(sent[refused.at].clone());
                trouble = Some(reason);
            } else {
                *all_taken = false;
                self.give_up(1, &reason);
            }
        }
        (again, trouble)
    }

    fn give_up(&mut self, n_records: usize, trouble: &Trouble) {
        self.live.add_errors(n_records);
        *self.errors.entry(trouble.kind.clone()).or_default() += n_records as u64;
        if trouble.nobody_listens {
            return; // That was said when it happened first.
        }
        self.live.notice(&trouble.kind, || match trouble.message.as_str() {
            "" => trouble.kind.clone(),
            message => format!("{}: {message}", trouble.kind),
        });
    }

    /// False when the stop came first.
    async fn wait_to_retry(&mut self, plan: &Plan, attempt: u32, retry_after: Option<Duration>) -> bool {
        let wait = match retry_after {
            Some(wait) => wait.min(MAX_RETRY_AFTER),
            // Half of it fixed, half of it random, so that connections do not come back together.
            None => backoff(plan.backoff, attempt).mul_f64(self.random.uniform(0.5, 1.0)),
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }

    /// Nothing was ever taken, and there is nobody to take it.
    fn is_in_vain(&self, plan: &Plan, trouble: &Trouble) -> Option<anyhow::Error> {
        let never_reached = self.live.counters().records == 0 && !self.stop.is_cancelled();
        let host = plan.endpoint.host();
        match trouble {
            Trouble { nobody_listens: true, .. } if never_reached => {
                Some(anyhow!("nothing listens on {host}: start `corkboard up` first"))
            }
            Trouble { kind, message, .. } if never_reached && kind == Failure::NO_CONNECTION => {
                Some(anyhow!("{host} cannot be reached: {message}"))
            }
            _ => None,
        }
    }
}

/// Doubled with each attempt, up to the maximum.
fn backoff(first: Duration, attempt: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(attempt)).min(MAX_BACKOFF)
}

impl Trouble {
    fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let retry_after =
            headers.get(header::RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, Utc::now()));
        Self {
            kind: format!("HTTP {}", status.as_u16()),
            message: message_of(body),
            retry_after,
            nobody_listens: false,
        }
    }

    fn failure(failure: &Failure) -> Self {
        Self {
            kind: failure.kind().to_owned(),
            message: failure.message().to_owned(),
            retry_after: None,
            nobody_listens: is_refused(failure),
        }
    }

    fn of_record(kind: String, message: String) -> Self {
        Self { kind, message, retry_after: None, nobody_listens: false }
    }
}

/// `Retry-After` is a number of seconds or a date (RFC 9110 §10.2.3).
fn retry_after(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = DateTime::parse_from_rfc2822(value).ok()?;
    Some((until.to_utc() - now).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::emulate::draws::DrawOrder;

    fn source(change: impl FnOnce(&mut EmulateArgs)) -> Source {
        let mut options = EmulateArgs::new("http://127.0.0.1:1", "0a3");
        change(&mut options);
        Source::new(&options)
    }

    #[test]
    fn a_rate_spaces_posts_evenly_and_a_batch_is_due_with_its_last() {
        let mut source = source(|o| (o.rate, o.count) = (4.0, 5));
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(source.take(1), Some(Work { rows: vec![7528], due: ms(0) }));
        assert_eq!(source.take(1), Some(Work { rows: vec![2863], due: ms(250) }));
        assert_eq!(source.take(2), Some(Work { rows: vec![5730, 8304], due: ms(750) }));
        assert_eq!(source.take(2), Some(Work { rows: vec![8731], due: ms(1_000) }));
        assert_eq!(source.take(2), None);
    }

    #[test]
    fn the_pace_of_the_seeds_adds_up_their_sleeps() {
        let mut source = source(|o| o.pace = Pace::Seeds);
        let seconds: Vec<u64> = (0..6).map(|_| source.take(1).unwrap().due.unwrap().as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 3, 3, 3]);
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let mut source = source(|o| (o.draws, o.count) = (DrawOrder::Sequential, 0));
        assert_eq!(source.take(3), Some(Work { rows: vec![0, 1, 2], due: None }));
        let left = std::iter::from_fn(|| source.take(1_000)).map(|work| work.rows.len()).sum::<usize>();
        assert_eq!(left, N_POSTS - 3, "in sequence the tables have an end");
    }

    #[test]
    fn waits_double_up_to_a_limit() {
        let first = Duration::from_millis(200);
        let waits: Vec<u128> = [0, 1, 2, 5, 6, 40, u32::MAX].map(|a| backoff(first, a).as_millis()).into();
        assert_eq!(waits, [200, 400, 800, 6_400, 10_000, 10_000, 10_000]);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        for (value, expected) in [
            ("0", Some(0)),
            (" 7 ", Some(7)),
            ("Thu, 01 Jan 2026 00:00:05 GMT", Some(5)),
            ("Thu, 01 Jan 2015 00:00:05 GMT", Some(0)),
            ("soon", None),
        ] {
            assert_eq!(retry_after(value, now), expected.map(Duration::from_secs), "{value}");
        }
    }
}
