//! Real power cuts, as near as a machine comes to them that stays on: an ext4 of its own on a
//! loop device forgets, between one instruction and the next, all that it has only in memory.
//! Some come while the log recovers from the one before.
//!
//! Not covered is a disk that lies about what it wrote, or writes in another order than asked.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    ledger::{Child, Ledger},
    sim::Random,
    volume::{Volume, say_figures},
};

/// Each check reads the whole folder, so a long run begins another now and then.
const ROUNDS_PER_DISK: usize = 25;
const DISK_BYTES: u64 = 512 << 20;
/// `EXT4_IOC_SHUTDOWN`, for each line that names a mount point and a flag. In Python because an
/// ioctl is unsafe in Rust, and the workspace forbids that.
const CUTTER: &str = r#"
import fcntl, os, struct, sys
for line in sys.stdin:
    path, flag = line.rstrip("\n").rsplit(" ", 1)
    folder = os.open(path, os.O_RDONLY)
    fcntl.ioctl(folder, 0x8004587D, struct.pack("I", int(flag)))
    os.close(folder)
    print("cut", flush=True)
"#;
/// The journal's last pages are written, or not even those.
const FLAG_LOG_FLUSH: u32 = 1;
const FLAG_NO_LOG_FLUSH: u32 = 2;

#[test]
#[ignore = "needs root, loop devices and python3: cargo xtask prove log-power"]
fn a_power_cut_below_a_real_file_system_loses_nothing_acknowledged() {
    let volume = Volume::asked_or(25);
    let mut random = Random(volume.seed);
    let mut cutter = Cutter::start();
    let rounds: Vec<u64> = (0..volume.count).collect();
    let (mut n_records, mut n_recovering) = (0, 0);
    for (n_disks, rounds) in rounds.chunks(ROUNDS_PER_DISK).enumerate() {
        let disk = Disk::make(if n_disks % 4 == 3 { "loop,data=writeback" } else { "loop" });
        let folder = disk.mount_point.join("log");
        let mut ledger = Ledger::default();
        for round in rounds {
            let child = Child::start(&folder, *round);
            let while_starting = random.below(3) == 0;
            if while_starting {
                thread::sleep(Duration::from_millis(random.below(25)));
            } else {
                child.wait_until_ready();
                thread::sleep(Duration::from_millis(1 + random.below(80)));
            }
            let flag = if random.below(4) == 0 { FLAG_LOG_FLUSH } else { FLAG_NO_LOG_FLUSH };
            let began = Instant::now();
            cutter.cut(&disk.mount_point, flag);
            // A sync that the shutdown overtakes may return as if all were well: the writes are done
            // and what the journal should say of them is not. Nobody hears of it where the
            // power is really gone.
            let said = child.kill().until(began);
            n_recovering += u64::from(!said.is_ready);
            ledger.add(said);
            disk.mount_again();
            // If not, the next child recovers from this cut, and perhaps meets another.
            if !while_starting {
                ledger.check(&folder, *round);
            }
        }
        ledger.check(&folder, rounds[0]);
        n_records += ledger.n_acknowledged();
    }
    assert!(n_records > 10 * volume.count, "only {n_records} records were acknowledged");
    say_figures(&format!(
        "{} power cuts, {n_recovering} of them while the log was opened; {n_records} acknowledged records, each \
         there, unaltered, at its offset; seed {}",
        volume.count, volume.seed
    ));
}

struct Cutter {
    process: process::Child,
    answers: BufReader<process::ChildStdout>,
}

impl Cutter {
    fn start() -> Self {
        let mut python = Command::new("python3");
        python.args(["-c", CUTTER]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = python.spawn().expect("python3 is there");
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { process, answers }
    }

    fn cut(&mut self, mount_point: &Path, flag: u32) {
        writeln!(self.process.stdin.as_ref().unwrap(), "{} {flag}", mount_point.display()).unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "cut\n", "the file system was shut down, which takes root");
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An ext4 in a file, mounted.
struct Disk {
    dir: tempfile::TempDir,
    mount_point: PathBuf,
    options: &'static str,
}

impl Disk {
    fn make(options: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("image")).unwrap().set_len(DISK_BYTES).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(dir.path().join("image")));
        let mount_point = dir.path().join("mounted");
        fs::create_dir(&mount_point).unwrap();
        let disk = Self { dir, mount_point, options };
        disk.mount();
        disk
    }

    fn mount(&self) {
        let mut mount = Command::new("mount");
        run(mount.args(["-o", self.options]).arg(self.dir.path().join("image")).arg(&self.mount_point));
    }

    fn mount_again(&self) {
        run(Command::new("umount").arg(&self.mount_point));
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may not be mounted, if that is what failed.
        let _ = Command::new("umount").arg(&self.mount_point).stderr(Stdio::null()).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} (which takes root): {said}");
}
