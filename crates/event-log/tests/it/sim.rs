//! A file system in memory that behaves as badly as real ones may: what was not synced is lost
//! in a power cut, block by block; a failed sync leaves pages that look clean and were never
//! written; space runs out; any call may fail. Everything follows from a seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind, IoSlice},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

use event_log::fs::{Access, Entry, File, FileSystem, Lock};
use model::Timestamp;

/// What a power cut writes or loses as a whole.
const BLOCK_BYTES: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Write,
    SyncData,
    SyncDir,
    Other,
}

#[derive(Default)]
pub(crate) struct Sim {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Default)]
struct Inode {
    /// What reads see.
    cached: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    size_is_dirty: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    Dir,
    File(usize),
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, Named>,
    durable_names: BTreeMap<PathBuf, Named>,
    locks: BTreeSet<PathBuf>,
    n_changes: u64,
    power_fails_at: Option<u64>,
    fail: Option<(Call, u64, ErrorKind)>,
    capacity_bytes: Option<usize>,
    gate: Arc<Gate>,
}

/// Where syncs wait while the device takes its time.
#[derive(Default)]
struct Gate {
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    is_closed: bool,
    n_waiting: usize,
}

impl Gate {
    fn pass(&self) {
        let mut held = self.held.lock().unwrap();
        held.n_waiting += 1;
        self.changed.notify_all();
        held = self.changed.wait_while(held, |held| held.is_closed).unwrap();
        held.n_waiting -= 1;
    }
}

/// Lets them go when dropped, also by a test that fails.
pub(crate) struct HeldSyncs(Arc<Gate>);

impl HeldSyncs {
    /// Blocks until there is one.
    pub(crate) fn wait_for_one(&self) {
        let held = self.0.held.lock().unwrap();
        drop(self.0.changed.wait_while(held, |held| held.n_waiting == 0).unwrap());
    }
}

impl Drop for HeldSyncs {
    fn drop(&mut self) {
        self.0.held.lock().unwrap().is_closed = false;
        self.0.changed.notify_all();
    }
}

impl Sim {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Calls so far that change something.
    pub(crate) fn n_changes(&self) -> u64 {
        self.lock().n_changes
    }

    /// From the `n`-th changing call on nothing works any more.
    pub(crate) fn power_fails_at(&self, n: u64) {
        self.lock().power_fails_at = Some(n);
    }

    /// The `n`-th call of this kind from now fails once (1: the next).
    pub(crate) fn fail(&self, call: Call, n: u64, error: ErrorKind) {
        self.lock().fail = Some((call, n, error));
    }

    pub(crate) fn fault_is_pending(&self) -> bool {
        self.lock().fail.is_some()
    }

    /// Syncs of data take until what this gives is dropped.
    pub(crate) fn hold_syncs(&self) -> HeldSyncs {
        let gate = Arc::clone(&self.lock().gate);
        gate.held.lock().unwrap().is_closed = true;
        HeldSyncs(gate)
    }

    /// How much all files together may hold.
    pub(crate) fn set_capacity(&self, bytes: Option<usize>) {
        self.lock().capacity_bytes = bytes;
    }

    pub(crate) fn used_bytes(&self) -> usize {
        self.lock().used_bytes()
    }

    /// What is found after a power cut now: what was synced, and of the rest whatever the seed
    /// says.
    pub(crate) fn after_power_cut(&self, seed: u64) -> Arc<Self> {
        let state = self.lock();
        let mut random = Random(seed);
        let mut names = state.durable_names.clone();
        let dirs: BTreeSet<_> =
            state.names.keys().chain(names.keys()).filter_map(|p| p.parent()).map(Path::to_owned).collect();
        for dir in dirs {
            // Of a folder's changed names: all, none, or any.
            let mode = random.below(4);
            let changed = state.names.keys().chain(state.durable_names.keys()).filter(|p| p.parent() == Some(&dir));
            for path in changed {
                if mode == 0 || mode == 1 && random.coin() {
                    match state.names.get(path) {
                        Some(named) => names.insert(path.clone(), *named),
                        None => names.remove(path),
                    };
                }
            }
        }
        // What a lost folder held is lost with it.
        let lost: Vec<_> = names
            .keys()
            .filter(|p| p.ancestors().skip(1).any(|a| a != Path::new("/") && names.get(a) != Some(&Named::Dir)))
            .cloned()
            .collect();
        for path in lost {
            names.remove(&path);
        }
        let inodes = state.inodes.iter().map(|inode| inode.after_power_cut(&mut random)).collect();
        let after = State { inodes, durable_names: names.clone(), names, ..State::default() };
        Arc::new(Self { state: Arc::new(Mutex::new(after)) })
    }

    /// What the next process finds if this one is killed now: memory is as it was.
    pub(crate) fn after_kill(&self) -> Arc<Self> {
        let state = self.lock();
        let after = State {
            inodes: state.inodes.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            ..State::default()
        };
        Arc::new(Self { state: Arc::new(Mutex::new(after)) })
    }

    /// The file's content, to be changed behind the log's back.
    pub(crate) fn edit<T>(&self, path: &Path, act: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut state = self.lock();
        let Some(Named::File(inode)) = state.names.get(path).copied() else { panic!("no file {}", path.display()) };
        let inode = &mut state.inodes[inode];
        let edited = act(&mut inode.cached);
        inode.durable.clone_from(&inode.cached);
        edited
    }

    /// Flips a bit where the device has `content`; memory still shows what was written.
    pub(crate) fn spoil_on_device(&self, path: &Path, content: &[u8]) {
        let mut state = self.lock();
        let Some(Named::File(inode)) = state.names.get(path).copied() else { panic!("no file {}", path.display()) };
        let durable = &mut state.inodes[inode].durable;
        let at = durable.windows(content.len()).position(|found| found == content).expect("it was synced");
        durable[at] ^= 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Inode {
    fn resize(&mut self, size: usize) {
        if size != self.cached.len() {
            self.cached.resize(size, 0);
            self.size_is_dirty = true;
        }
    }

    fn write_back(&mut self, block: usize) {
        let from = block * BLOCK_BYTES;
        let to = (from + BLOCK_BYTES).min(self.cached.len());
        if from < to {
            let size = self.durable.len().max(to);
            self.durable.resize(size, 0);
            self.durable[from..to].copy_from_slice(&self.cached[from..to]);
        }
    }

    fn sync(&mut self) {
        for block in std::mem::take(&mut self.dirty) {
            self.write_back(block);
        }
        self.durable.resize(self.cached.len(), 0);
        self.size_is_dirty = false;
    }

    fn after_power_cut(&self, random: &mut Random) -> Self {
        let mut inode = self.clone();
        if inode.size_is_dirty && random.coin() {
            inode.durable.resize(inode.cached.len(), 0);
        }
        // Of what was on its way: all, nothing, any blocks, or all but one stretch.
        let n_dirty = self.dirty.len() as u64;
        let (from, mode) = (random.below(n_dirty + 1), random.below(4));
        let to = from + random.below(n_dirty + 1);
        for (i, block) in self.dirty.iter().copied().enumerate() {
            let is_written = match mode {
                0 => true,
                1 => false,
                2 => random.coin(),
                _ => !(from..to).contains(&(i as u64)),
            };
            if is_written {
                inode.write_back(block);
            }
        }
        Self { cached: inode.durable.clone(), durable: inode.durable, ..Self::default() }
    }
}

impl State {
    fn used_bytes(&self) -> usize {
        let files = self.names.values().filter_map(|n| if let Named::File(i) = n { Some(*i) } else { None });
        files.map(|i| self.inodes[i].cached.len()).sum()
    }

    /// Counts a change and fails it if it is its turn.
    fn change(&mut self, call: Call) -> io::Result<()> {
        self.n_changes += 1;
        self.reading()?;
        if let Some((kind, n, error)) = &mut self.fail
            && *kind == call
        {
            *n -= 1;
            if *n == 0 {
                let error = *error;
                self.fail = None;
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn reading(&self) -> io::Result<()> {
        match self.power_fails_at {
            Some(at) if self.n_changes >= at => Err(io::Error::other("the power is off")),
            _ => Ok(()),
        }
    }

    fn make_room(&self, inode: usize, size: usize) -> io::Result<()> {
        let more = size.saturating_sub(self.inodes[inode].cached.len());
        match self.capacity_bytes {
            Some(capacity) if self.used_bytes() + more > capacity => Err(ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl FileSystem for Sim {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let mut state = self.lock();
        state.reading()?;
        let inode = match state.names.get(path) {
            Some(Named::File(inode)) => *inode,
            Some(Named::Dir) => return Err(ErrorKind::IsADirectory.into()),
            None if access != Access::Create => return Err(ErrorKind::NotFound.into()),
            None if path.parent().is_some_and(|p| state.names.get(p) != Some(&Named::Dir)) => {
                return Err(ErrorKind::NotFound.into());
            }
            None => {
                state.change(Call::Other)?;
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.names.insert(path.to_owned(), Named::File(inode));
                inode
            }
        };
        Ok(Arc::new(SimFile { state: Arc::clone(&self.state), inode }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let parent = path.parent().unwrap();
        if parent != Path::new("/") && state.names.get(parent) != Some(&Named::Dir) {
            return Err(ErrorKind::NotFound.into());
        }
        if !state.names.contains_key(path) {
            state.change(Call::Other)?;
            state.names.insert(path.to_owned(), Named::Dir);
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let state = self.lock();
        state.reading()?;
        if state.names.get(dir) != Some(&Named::Dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let children = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let entry = |(path, named): (&PathBuf, &Named)| Entry {
            name: path.file_name().unwrap().to_str().unwrap().to_owned(),
            size_bytes: if let Named::File(i) = named { state.inodes[*i].cached.len() as u64 } else { 0 },
        };
        Ok(children.map(entry).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.change(Call::Other)?;
        let named = state.names.remove(from).ok_or(ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), named);
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.change(Call::Other)?;
        state.names.remove(path).map(drop).ok_or(ErrorKind::NotFound.into())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        if !self.list(path)?.is_empty() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        self.unlink(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.change(Call::SyncDir)?;
        let State { names, durable_names, .. } = &mut *state;
        durable_names.retain(|path, _| path.parent() != Some(dir));
        durable_names.extend(names.iter().filter(|(p, _)| p.parent() == Some(dir)).map(|(p, n)| (p.clone(), *n)));
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let mut state = self.lock();
        if !state.locks.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(SimLock { state: Arc::clone(&self.state), path: path.to_owned() })))
    }
}

struct SimLock {
    state: Arc<Mutex<State>>,
    path: PathBuf,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.state.lock().unwrap().locks.remove(&self.path);
    }
}

struct SimFile {
    state: Arc<Mutex<State>>,
    inode: usize,
}

impl SimFile {
    fn change<T>(&self, call: Call, act: impl FnOnce(&mut Inode) -> T) -> io::Result<T> {
        let mut state = self.state.lock().unwrap();
        state.change(call)?;
        Ok(act(&mut state.inodes[self.inode]))
    }
}

impl File for SimFile {
    fn size(&self) -> io::Result<u64> {
        let state = self.state.lock().unwrap();
        state.reading()?;
        Ok(state.inodes[self.inode].cached.len() as u64)
    }

    fn modified(&self) -> io::Result<Timestamp> {
        Ok(Timestamp(0))
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let state = self.state.lock().unwrap();
        state.reading()?;
        let content = state.inodes[self.inode].cached.get(position as usize..).unwrap_or_default();
        let n = buffer.len().min(content.len());
        buffer[..n].copy_from_slice(&content[..n]);
        Ok(n)
    }

    fn write_at(&self, parts: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        let content: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let end = position as usize + content.len();
        self.state.lock().unwrap().make_room(self.inode, end)?;
        self.change(Call::Write, |inode| {
            if end > inode.cached.len() {
                inode.resize(end);
            }
            inode.cached[position as usize..end].copy_from_slice(&content);
            inode.dirty.extend(position as usize / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES));
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let gate = Arc::clone(&self.state.lock().unwrap().gate);
        gate.pass();
        let synced = self.change(Call::SyncData, Inode::sync);
        let mut state = self.state.lock().unwrap();
        if synced.is_err() && state.reading().is_ok() {
            // The kernel says it once, and takes the pages for clean.
            state.inodes[self.inode].dirty.clear();
        }
        synced
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.change(Call::Other, |inode| {
            inode.resize(size as usize);
            if !(size as usize).is_multiple_of(BLOCK_BYTES) {
                inode.dirty.insert(size as usize / BLOCK_BYTES);
            }
        })
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        self.state.lock().unwrap().make_room(self.inode, size as usize)?;
        self.change(Call::Other, |inode| inode.resize(inode.cached.len().max(size as usize)))
    }

    fn forget_cache(&self) -> io::Result<()> {
        let inode = &mut self.state.lock().unwrap().inodes[self.inode];
        for block in (0..inode.cached.len().div_ceil(BLOCK_BYTES)).filter(|block| !inode.dirty.contains(block)) {
            let from = block * BLOCK_BYTES;
            for at in from..(from + BLOCK_BYTES).min(inode.cached.len()) {
                inode.cached[at] = inode.durable.get(at).copied().unwrap_or_default();
            }
        }
        Ok(())
    }
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}
