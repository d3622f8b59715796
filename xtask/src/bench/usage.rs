//! What a program takes of the machine, as the kernel tells it in `/proc`: memory, processor
//! time, and how long it ran.

use std::{
    fs,
    io::Read,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::spread::median;

/// The unit of times in `/proc/<pid>/stat`, which is the same on all of Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// The peak is kept by the kernel and lost with the process: what is allocated in the last such
/// moment of its life may be missed.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const MIB: f64 = 1024.0 * 1024.0;

/// A program from its start to its end.
#[derive(Clone, Debug)]
pub(super) struct Usage {
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
    pub(super) peak_mib: f64,
}

/// Each figure's median.
pub(super) fn middle(runs: &[Usage]) -> Usage {
    let of = |figure: fn(&Usage) -> f64| median(&runs.iter().map(figure).collect::<Vec<_>>());
    Usage { seconds: of(|u| u.seconds), cpu_seconds: of(|u| u.cpu_seconds), peak_mib: of(|u| u.peak_mib) }
}

/// Runs to the end, and returns what it took and what it wrote to standard output. No other
/// child may end meanwhile, whose processor time would be taken for this one's.
pub(super) fn of(command: &mut Command) -> Result<(Usage, String)> {
    let program = command.get_program().to_string_lossy().into_owned();
    let cpu_before = cpu_seconds_of_ended_children()?;
    let begin = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {program}"))?;
    let stdout = child.stdout.take().expect("it was asked to be piped");
    let stderr = child.stderr.take().expect("it was asked to be piped");
    let (said, complained) = (thread::spawn(|| read(stdout)), thread::spawn(|| read(stderr)));
    let peak_mib = watch(&mut child)?;
    let seconds = begin.elapsed().as_secs_f64();
    let status = child.wait().with_context(|| format!("wait for {program}"))?;
    let (Ok(said), Ok(complained)) = (said.join(), complained.join()) else { bail!("a reader's thread panicked") };
    ensure!(status.success(), "{program} failed: {status}\n{}", complained?);
    let cpu_seconds = cpu_seconds_of_ended_children()? - cpu_before;
    Ok((Usage { seconds, cpu_seconds, peak_mib }, said?))
}

fn read(mut from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.read_to_string(&mut text)?;
    Ok(text)
}

/// Until the child's end: the most memory that it was seen to have had.
fn watch(child: &mut Child) -> Result<f64> {
    let mut peak = 0.0_f64;
    while child.try_wait()?.is_none() {
        // A process that is just ending has no memory any more.
        peak = peak.max(memory_mib(child.id()).map_or(0.0, |memory| memory.peak));
        thread::sleep(LOOK_EVERY);
    }
    Ok(peak)
}

/// Resident memory of a process in MiB: now, and the most so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Memory {
    pub(super) now: f64,
    pub(super) peak: f64,
}

pub(super) fn memory_mib(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read a process's status")?;
    let mib_of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).context("the process has ended")?;
        Ok::<_, anyhow::Error>(kib.parse::<f64>()? * 1024.0 / MIB)
    };
    Ok(Memory { now: mib_of("VmRSS:")?, peak: mib_of("VmHWM:")? })
}

/// Processor time of a running process, its threads together.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("read a process's stat")?;
    times(&stat).map(|times| times[0] + times[1])
}

fn cpu_seconds_of_ended_children() -> Result<f64> {
    times(&fs::read_to_string("/proc/self/stat")?).map(|times| times[2] + times[3])
}

/// Seconds in user and system mode, of the process and of its children that were waited for.
fn times(stat: &str) -> Result<[f64; 4]> {
    // The second field is the program's name in parentheses, which may contain blanks.
    let (_, after_name) = stat.rsplit_once(')').context("a stat has a name")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let mut times = [0.0; 4];
    for (time, field) in times.iter_mut().zip(fields.get(11..15).context("a stat has times")?) {
        *time = field.parse::<f64>()? / TICKS_PER_SECOND;
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_measured_and_heard() {
        let script = "x=$(head -c 30000000 /dev/zero | tr '\\0' 'x'); i=0; \
                      while [ $i -lt 100000 ]; do i=$((i+1)); done; sleep 0.05; echo ${#x}";
        let (usage, said) = of(Command::new("sh").args(["-c", script])).expect("a shell is there");
        assert_eq!(said, "30000000\n");
        assert!(usage.peak_mib > 28.0 && usage.peak_mib < 1000.0, "{usage:?}");
        assert!(usage.seconds > 0.05 && usage.cpu_seconds > 0.0, "{usage:?}");
    }

    #[test]
    fn a_failure_says_what_the_program_said() {
        let error = of(Command::new("sh").args(["-c", "echo no room >&2; exit 3"])).expect_err("it failed");
        assert!(error.to_string().contains("no room"), "{error}");
    }

    #[test]
    fn times_are_read_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 0 0 0 0 150 50 700 300 20 0 1 0";
        assert_eq!(times(stat).expect("it is a stat"), [1.5, 0.5, 7.0, 3.0]);
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let memory = memory_mib(std::process::id()).expect("it runs");
        assert!(memory.now > 0.0 && memory.peak >= memory.now, "{memory:?}");
        assert!(cpu_seconds(std::process::id()).is_ok());
    }
}
