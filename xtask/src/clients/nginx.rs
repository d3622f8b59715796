//! Clients that come by way of nginx, as Corkboard is often reached: the configuration is the one that
//! people are given (`tests/clients/nginx/corkboard.conf`), but for its addresses.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{entrance::Doors, python, shell};
use crate::{process, scratch::Scratch, toolchain::Toolchain, workspace};

const NGINX: Toolchain = Toolchain { programs: &["nginx"], packages: &["nginx"], otherwise: "nginx 1.22 or later" };
const SITE: &str = "tests/clients/nginx/corkboard.conf";
/// Where other addresses go.
const LISTEN: &str = "listen 80;";
const SERVER: &str = "server 127.0.0.1:8082;";
const START: Duration = Duration::from_secs(10);

/// One largest body at a time, so that it is easily seen what is said to a second one.
const SETTINGS: [(&str, &str); 1] = [("CORKBOARD__INGEST__MAX_INFLIGHT_BYTES", "16777216")];

pub(super) fn run(binary: &Path, _is_long: bool) -> Result<()> {
    NGINX.ensure()?;
    let doors = Doors::with_keys(binary, &SETTINGS)?;
    let nginx = Nginx::start_before(&doors.entrance.url)?;
    let entrance = doors.entrance.by_way_of(nginx.url());
    shell::curl(&entrance)?;
    python::kafka_bridge(&entrance)?;
    python::boto3(&entrance)?;
    let mut behind = python::program("nginx/behind.py")?;
    process::run(entrance.let_in(behind.args([&entrance.url, &doors.entrance.url])))?;
    nginx.stop()?;
    doors.stop()
}

struct Nginx {
    child: Child,
    port: u16,
    _folder: Scratch,
}

impl Nginx {
    fn start_before(url: &str) -> Result<Self> {
        let folder = Scratch::new("nginx")?;
        let port = free_port()?;
        let site = fs::read_to_string(workspace::root().join(SITE)).with_context(|| format!("read {SITE}"))?;
        ensure!(site.contains(LISTEN) && site.contains(SERVER), "{SITE} says neither {LISTEN:?} nor {SERVER:?}");
        let address = url.trim_start_matches("http://");
        let site = site.replace(LISTEN, &format!("listen 127.0.0.1:{port};"));
        let site = site.replace(SERVER, &format!("server {address};"));
        let config = folder.join("nginx.conf");
        fs::write(&config, whole(&site)).with_context(|| format!("write {}", config.display()))?;
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(&*folder).arg("-c").arg(&config).args(["-e", "stderr"]);
        let mut nginx = Self { child: nginx.spawn().context("start nginx")?, port, _folder: folder };
        nginx.wait_until_there()?;
        Ok(nginx)
    }

    fn wait_until_there(&mut self) -> Result<()> {
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if let Some(status) = self.child.try_wait().context("ask after nginx")? {
                bail!("nginx ended at once: {status}");
            }
            ensure!(begin.elapsed() < START, "nginx does not listen");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn stop(mut self) -> Result<()> {
        process::run(Command::new("kill").args(["-QUIT", &self.child.id().to_string()]))?;
        let status = self.child.wait().context("wait for nginx's end")?;
        ensure!(status.success(), "nginx did not stop in good order: {status}");
        Ok(())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// It has to be told one.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}

/// The site as one process of whoever runs this, that writes below its own folder alone.
fn whole(site: &str) -> String {
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let folders: String = kinds.iter().map(|kind| format!("{kind}_temp_path {kind};\n")).collect();
    format!("daemon off;\nmaster_process off;\npid pid;\nevents {{}}\nhttp {{\naccess_log off;\n{folders}{site}}}\n")
}
