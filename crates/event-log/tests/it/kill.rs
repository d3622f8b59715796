//! The process is killed at random moments, under load, while topics come and go, and while it
//! starts, again and again on the same folder: what it had acknowledged is there, in order, unaltered
//! and dense.

use std::{thread, time::Duration};

use crate::{
    ledger::{Child, Ledger},
    sim::Random,
    volume::{Volume, say_figures},
};

/// Each check reads the whole folder, so a long run begins another now and then.
const ROUNDS_PER_FOLDER: usize = 30;

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let volume = Volume::asked_or(30);
    let mut random = Random(volume.seed);
    let rounds: Vec<u64> = (0..volume.count).collect();
    let (mut n_records, mut n_starting) = (0, 0);
    for rounds in rounds.chunks(ROUNDS_PER_FOLDER) {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::default();
        for round in rounds {
            let child = Child::start(dir.path(), *round);
            if random.below(5) == 0 {
                thread::sleep(Duration::from_millis(random.below(20)));
            } else {
                child.wait_until_ready();
                thread::sleep(Duration::from_millis(5 + random.below(56)));
            }
            let said = child.kill();
            assert!(said.refused.is_empty(), "a disk that is well refuses nothing: {:?}", said.refused);
            n_starting += u64::from(!said.is_ready);
            ledger.add(said);
            ledger.check(dir.path(), *round);
        }
        n_records += ledger.n_acknowledged();
    }
    assert!(n_records > 10 * volume.count, "only {n_records} records were acknowledged");
    say_figures(&format!(
        "{} kills, {n_starting} of them while the log was opened; {n_records} acknowledged records, each there, \
         unaltered, at its offset; seed {}",
        volume.count, volume.seed
    ));
}
