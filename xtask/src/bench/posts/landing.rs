//! Posts as landing objects: the files that `corkboard` lands when these posts come in, without
//! the way through a log.

use std::{fs, ops::Range, path::Path};

use anyhow::{Context, Result};

use super::{Posts, STREAMS, USER_ID, topic};

/// As many as `landing.flush_size` is by default.
const RECORDS_PER_OBJECT: u64 = 50_000;

/// How much there is in a landing folder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::bench) struct Landed {
    user_id: &'static str,
    /// The next offset of each stream's topic.
    next: [u64; 3],
    pub(in crate::bench) n_bytes: u64,
}

impl Default for Landed {
    fn default() -> Self {
        Self::of(USER_ID)
    }
}

impl Landed {
    /// Nothing yet, of topics that begin with this name.
    pub(in crate::bench) const fn of(user_id: &'static str) -> Self {
        Self { user_id, next: [0; 3], n_bytes: 0 }
    }

    pub(in crate::bench) fn n_records(&self) -> u64 {
        self.next.iter().sum()
    }

    /// Lands further posts behind what is there.
    pub(in crate::bench) fn land(&mut self, posts: &Posts, numbers: Range<u64>, folder: &Path) -> Result<()> {
        for stream in 0..STREAMS.len() {
            let topic = topic(self.user_id, stream);
            let partition = folder.join("topics").join(&topic).join("partition=0");
            fs::create_dir_all(&partition).with_context(|| format!("create {}", partition.display()))?;
            let mut object = Object::at(self.next[stream]);
            for n in numbers.clone().flat_map(|n| Posts::due(stream, n)) {
                posts.write(stream, n, &mut object.lines);
                object.lines.push(b'\n');
                object.n_records += 1;
                if object.n_records == RECORDS_PER_OBJECT {
                    self.n_bytes += object.put(&partition, &topic)?;
                    object = Object::at(object.end());
                }
            }
            self.n_bytes += object.put(&partition, &topic)?;
            self.next[stream] = object.end();
        }
        Ok(())
    }
}

struct Object {
    start: u64,
    n_records: u64,
    lines: Vec<u8>,
}

impl Object {
    const fn at(start: u64) -> Self {
        Self { start, n_records: 0, lines: Vec::new() }
    }

    const fn end(&self) -> u64 {
        self.start + self.n_records
    }

    /// Its size; an empty object is none.
    fn put(&self, partition: &Path, topic: &str) -> Result<u64> {
        if self.n_records > 0 {
            let path = partition.join(format!("{topic}+0+{:010}.json", self.start));
            fs::write(&path, &self.lines).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(self.lines.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::posts::tests::posts;

    #[test]
    fn objects_follow_one_another_and_hold_every_record() {
        let folder = std::env::temp_dir().join(format!("corkboard-landed-{}", std::process::id()));
        let mut landed = Landed::default();
        landed.land(&posts(), 0..50_000, &folder).expect("the temporary folder takes files");
        landed.land(&posts(), 50_000..60_000, &folder).expect("the temporary folder takes files");
        let (mut n_records, mut n_bytes) = (0, 0);
        for stream in 0..STREAMS.len() {
            let partition = folder.join("topics").join(topic(USER_ID, stream)).join("partition=0");
            let mut objects: Vec<_> = fs::read_dir(partition).expect("it was made").flatten().collect();
            objects.sort_by_key(fs::DirEntry::file_name);
            let mut next = 0;
            for object in objects {
                let name = object.file_name().to_string_lossy().into_owned();
                assert_eq!(name, format!("{}+0+{next:010}.json", topic(USER_ID, stream)));
                let lines = fs::read_to_string(object.path()).expect("it was written");
                next += lines.lines().count();
                n_bytes += lines.len() as u64;
            }
            n_records += next as u64;
        }
        fs::remove_dir_all(folder).expect("it was just written");
        assert_eq!((landed.n_records(), landed.n_bytes), (n_records, n_bytes));
        assert!((60_000 * 3..61_500 * 3 + 3_000).contains(&n_records), "{n_records}");
    }
}
