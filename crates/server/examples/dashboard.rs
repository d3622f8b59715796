//! The dashboard over made-up data that moves, to work on its looks without a pipeline:
//! `cargo run -p server --example dashboard [quiet]`. Prints its address.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use axum::{Router, routing::get};
use model::{
    EventLog, Report, Stop, Task,
    config::{Config, ScheduleConfig},
};
use server::{api, dashboard, metrics::Metrics, orchestrator::Driver};

#[path = "../tests/it/fakes.rs"]
#[allow(dead_code)]
mod fakes;

use fakes::{CountingLog, GivenViews};

const VIEWS: [(&str, &str, &str); 7] = [
    (
        "most_popular_category_per_country",
        "table",
        r#"[{"country":"Afghanistan","category":"education","category_count":94},{"country":"Albania","category":"art","category_count":193},{"country":"Algeria","category":"quotes","category_count":256},{"country":"American Samoa","category":"tattoos","category_count":61},{"country":"<script>alert(1)</script>","category":"\"><img src=x onerror=alert(2)>","category_count":null}]"#,
    ),
    (
        "posts_per_category",
        "bar category number_posts",
        r#"[{"category":"christmas","number_posts":1183},{"category":"tattoos","number_posts":1062},{"category":"vehicles","number_posts":1001},{"category":"diy-and-crafts","number_posts":954},{"category":"education","number_posts":871},{"category":"home-decor","number_posts":820},{"category":"art","number_posts":776},{"category":"travel","number_posts":742},{"category":"quotes","number_posts":690},{"category":"beauty","number_posts":655},{"category":"finance","number_posts":611},{"category":"mens-fashion","number_posts":540},{"category":"event-planning","number_posts":498}]"#,
    ),
    (
        "new_users_per_year",
        "bar joining_year number_users_joined",
        r#"[{"joining_year":2015,"number_users_joined":841},{"joining_year":2016,"number_users_joined":2760},{"joining_year":2017,"number_users_joined":1706}]"#,
    ),
    (
        "median_follower_count_per_age_group",
        "bar age_group median_follower_count",
        r#"[{"age_group":"18-24","median_follower_count":130000},{"age_group":"25-35","median_follower_count":22000},{"age_group":"36-50","median_follower_count":7000},{"age_group":"50+","median_follower_count":3000}]"#,
    ),
    (
        "posts_per_month",
        "line month number_posts",
        r#"[{"month":"2021-01","number_posts":310},{"month":"2021-02","number_posts":290},{"month":"2021-03","number_posts":350},{"month":"2021-04","number_posts":420},{"month":"2021-05","number_posts":380},{"month":"2021-06","number_posts":510}]"#,
    ),
    ("nothing_yet", "bar a b", "[]"),
    ("broken_view", "table", "failed: column p.colour does not exist"),
];

/// Pretends: takes a while, reports something, fails now and then.
struct Pretends {
    name: &'static str,
    took_ms: u64,
    n_runs: u64,
    fails_every: u64,
    views: Arc<GivenViews>,
}

#[async_trait]
impl Task for Pretends {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn run(&mut self, stop: &Stop) -> anyhow::Result<Report> {
        self.n_runs += 1;
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(Duration::from_millis(self.took_ms + self.n_runs % 7 * 13)) => {}
        }
        anyhow::ensure!(
            self.fails_every == 0 || !self.n_runs.is_multiple_of(self.fails_every),
            "writing tables/pin/part-00017.parquet: no space left on device"
        );
        match self.name {
            "batch" => self.views.batch_percent.store(92, Ordering::Relaxed),
            "speed" => self.views.realtime_percent.store(97, Ordering::Relaxed),
            _ => {}
        }
        let mut report = Report { did_work: true, ..Report::default() };
        report.add("n_records", 40 + self.n_runs * 17 % 90);
        if self.name == "landing" {
            report.add("lag_records", self.n_runs * 37 % 400);
        }
        report.add("written_bytes", 18_000 + self.n_runs * 3_001);
        if self.name == "landing" && self.n_runs.is_multiple_of(5) {
            report.notices.push("topic lost.things belongs to no stream".to_owned());
        }
        Ok(report)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let is_quiet = std::env::args().any(|a| a == "quiet");
    let log = match is_quiet {
        true => CountingLog::with(&[]),
        false => CountingLog::with(&[
            ("0a3.pin", &[180_211, 179_800, 181_020]),
            ("0a3.geo", &[120_040]),
            ("0a3.user", &[119_870]),
            ("lost.things", &[12]),
        ]),
    };
    let views = if is_quiet { VIEWS.map(|(name, chart, _)| (name, chart, "[]")) } else { VIEWS };
    let views = GivenViews::of(log.clone(), &views);
    let config = Config::defaults();
    let mut driver = Driver::new(&config.driver, log.moved(), Arc::new(Metrics::new()));
    for (name, took_ms, fails_every) in
        [("landing", 40, 0), ("speed", 90, 0), ("batch", 2500, 0), ("compact", 400, 1), ("vacuum", 20, 0)]
    {
        let own = config.tasks.each().into_iter().find(|(task, _)| *task == name).expect("a task of ours").1.clone();
        let schedule = ScheduleConfig { every_ms: Some(2000), ..own.clone() };
        let schedule = if name == "batch" { own } else { schedule };
        driver.add(Box::new(Pretends { name, took_ms, n_runs: 0, fails_every, views: views.clone() }), &schedule)?;
    }
    let services = fakes::services(log.clone(), Some(views), driver.handle());
    if !is_quiet {
        tokio::spawn(driver.run(Stop::new(), Stop::new()));
        tokio::spawn(async move {
            for i in 0.. {
                tokio::time::sleep(Duration::from_millis(100)).await;
                log.grow("0a3.pin", i % 3, 60 + (i as f64 / 9.0).sin().mul_add(35.0, 0.0) as u64);
                log.grow("0a3.geo", 0, 21);
                log.grow("0a3.user", 0, 20);
            }
        });
    }
    let routes = Router::new().route("/", get(|| async { dashboard::index() }));
    let routes = routes.merge(api::routes()).merge(dashboard::routes()).with_state(services);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/", listener.local_addr()?);
    Ok(axum::serve(listener, routes).await?)
}
