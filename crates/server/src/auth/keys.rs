//! The keys file: who holds a key, what the key may do, and how often.
//!
//! A key is `<id>.<32 random bytes>`. The file keeps a salted SHA-256 of it: nobody guesses 256
//! random bits, so a hash that is slow on purpose would only slow the server down. The file is
//! written whole or not at all, and read again by servers when it changes.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, SecondsFormat, Utc};
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::{hex, permission, permission::Permission, usage::Plan};

/// A file larger than this is none of ours.
const MAX_FILE_BYTES: u64 = 4 << 20;
const MAX_KEYS: usize = 10_000;
const MAX_NAME_CHARS: usize = 100;
const HEAD: &str = "# Written by `corkboard keys`. Keys are kept as hashes; a lost one is replaced, not recovered.\n\n";
/// What ids look like: this and sixteen letters and digits, so that AWS clients take them.
const ID_PREFIX: &str = "CORK";
const ID_LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysFile {
    #[serde(default, rename = "key")]
    pub keys: Vec<KeyEntry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    pub id: String,
    /// For people.
    pub name: String,
    pub salt: String,
    /// SHA-256 of salt and key, in hexadecimal digits.
    pub hash: String,
    pub created: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    #[serde(default, rename = "usage", skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    #[serde(default, rename = "allow")]
    pub permissions: Vec<Permission>,
}

/// A key as its holder has it. It is shown once, and to nobody else: not even `Debug` says it.
pub struct KeyText(String);

impl KeyText {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText(…)")
    }
}

impl KeyEntry {
    /// A new key, and what its holder is given.
    pub fn generate(
        name: &str,
        permissions: Vec<Permission>,
        plan: Option<Plan>,
        expires: Option<DateTime<Utc>>,
    ) -> Result<(Self, KeyText)> {
        let id_letters = random::<16>()?.map(|byte| char::from(ID_LETTERS[usize::from(byte % 32)]));
        let id = format!("{ID_PREFIX}{}", String::from_iter(id_letters));
        let salt = random::<16>()?;
        let text = KeyText(format!("{id}.{}", BASE64_URL_SAFE_NO_PAD.encode(random::<32>()?)));
        let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        let entry = Self {
            hash: hex::encode(&hash(&salt, &text.0)),
            salt: hex::encode(&salt),
            id,
            name: name.to_owned(),
            created: time(Utc::now()),
            expires: expires.map(time),
            plan,
            permissions,
        };
        Ok((entry, text))
    }
}

/// A key as requests are checked against it.
#[derive(Debug)]
pub(super) struct Hashed {
    pub(super) salt: [u8; 16],
    hash: [u8; 32],
}

impl Hashed {
    /// Stands in for a key that is not there, so that asking for it takes as long.
    pub(super) const NOBODY: Self = Self { salt: [0; 16], hash: [0; 32] };

    pub(super) fn of(entry: &KeyEntry) -> Result<Self> {
        let salt = hex::decode(&entry.salt).context("salt is not 32 hexadecimal digits")?;
        let hash = hex::decode(&entry.hash).context("hash is not 64 hexadecimal digits")?;
        Ok(Self { salt, hash })
    }

    /// Whether `text` is the key, in a time that says nothing about it.
    pub(super) fn is_of(&self, text: &str) -> bool {
        hash(&self.salt, text).ct_eq(&self.hash).into()
    }
}

fn hash(salt: &[u8; 16], text: &str) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(salt);
    context.update(text.as_bytes());
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    Ok(bytes)
}

impl KeysFile {
    pub fn parse(text: &str) -> Result<Self> {
        let file: Self = toml::from_str(text).map_err(|e| anyhow::anyhow!("{}", e.message()))?;
        file.check()?;
        Ok(file)
    }

    /// None where there is no file yet.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let size_bytes = match fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        ensure!(size_bytes <= MAX_FILE_BYTES, "{} is larger than {MAX_FILE_BYTES} bytes", path.display());
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string()).map(Some)
    }

    /// Whoever reads the file meanwhile sees all of the old or all of the new.
    pub fn write(&self, path: &Path) -> Result<()> {
        self.check()?;
        let text = toml::to_string(self).context("keys as TOML")?;
        write_whole(path, format!("{HEAD}{text}").as_bytes(), |from, to| fs::rename(from, to))
    }

    /// Changes the file, beginning with none where there is none. One after the other does, in
    /// whatever process.
    pub fn change<T>(path: &Path, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let locked = folder_of(path).and_then(fs::File::open).and_then(|folder| folder.lock().map(|()| folder));
        let _locked = locked.with_context(|| format!("cannot lock the folder of {}", path.display()))?;
        let mut file = Self::read(path)?.unwrap_or_default();
        let changed = change(&mut file)?;
        file.write(path)?;
        Ok(changed)
    }

    pub fn add(&mut self, entry: KeyEntry) {
        self.keys.push(entry);
    }

    /// Removes the key of this id or, where only one has it, of this name; says which.
    pub fn remove(&mut self, id_or_name: &str) -> Result<KeyEntry> {
        let places: Vec<usize> = (0..self.keys.len())
            .filter(|i| [&self.keys[*i].id, &self.keys[*i].name].contains(&&id_or_name.to_owned()))
            .collect();
        match places[..] {
            [place] => Ok(self.keys.remove(place)),
            [] => bail!("there is no key {id_or_name:?}; `corkboard keys list` shows them"),
            _ => bail!("{} keys are called {id_or_name:?}; name the id of the one that is meant", places.len()),
        }
    }

    fn check(&self) -> Result<()> {
        ensure!(self.keys.len() <= MAX_KEYS, "{} keys are more than {MAX_KEYS}", self.keys.len());
        let mut ids = BTreeSet::new();
        for (i, key) in self.keys.iter().enumerate() {
            key.check().with_context(|| format!("key {}, {}", i + 1, key.id))?;
            ensure!(ids.insert(&key.id), "key {}: the id {} is there twice", i + 1, key.id);
        }
        Ok(())
    }
}

impl KeyEntry {
    fn check(&self) -> Result<()> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        ensure!((1..=64).contains(&self.id.len()) && self.id.bytes().all(allowed), "id is no id");
        let n_chars = self.name.chars().count();
        ensure!(n_chars <= MAX_NAME_CHARS, "name is longer than {MAX_NAME_CHARS} characters");
        ensure!(!self.name.chars().any(char::is_control), "name has control characters");
        Hashed::of(self)?;
        self.expires_at()?;
        for permission in &self.permissions {
            permission::check_names(&permission.names).map_err(anyhow::Error::msg).context("allow.names")?;
        }
        self.plan.as_ref().map_or(Ok(()), Plan::check).context("usage")
    }

    pub fn expires_at(&self) -> Result<Option<DateTime<Utc>>> {
        let parse = |text: &String| DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
        self.expires.as_ref().map(parse).transpose().context("expires is no time such as 2030-01-01T00:00:00Z")
    }
}

/// Beside the file first, then in its place, which `place` takes: whoever reads it sees all or nothing,
/// and nobody else may.
pub(super) fn write_whole(path: &Path, bytes: &[u8], place: impl FnOnce(&Path, &Path) -> io::Result<()>) -> Result<()> {
    let beside = path.with_extension(format!("{}.new", hex::encode(&random::<8>()?)));
    let written = folder_of(path).and_then(|folder| {
        let mut file = new_private_file(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        place(&beside, path)?;
        fs::File::open(folder)?.sync_all()
    });
    // Gone, if it took the place; else it is of no use.
    let _ = fs::remove_file(&beside);
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Made first where it is not there.
fn folder_of(path: &Path) -> io::Result<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    Ok(folder.to_owned())
}

fn new_private_file(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_text_alone_and_the_file_does_not_hold_it() {
        let permissions = vec!["produce:0a3.*".parse().expect("a permission")];
        let (entry, text) = KeyEntry::generate("phone", permissions, None, None).expect("random bytes");
        let hashed = Hashed::of(&entry).expect("of our making");
        assert!(hashed.is_of(text.reveal()));
        let mut wrong = text.reveal().to_owned();
        wrong.pop();
        assert!(!hashed.is_of(&wrong) && !hashed.is_of("") && !Hashed::NOBODY.is_of(""));
        let secret = text.reveal().split_once('.').expect("two parts").1;
        let file = KeysFile { keys: vec![entry] };
        let written = toml::to_string(&file).expect("TOML");
        assert!(!written.contains(secret) && !format!("{text:?}{file:?}").contains(secret));
        let read = KeysFile::parse(&written).expect("what was written");
        assert_eq!(read.keys[0].permissions, file.keys[0].permissions);
    }

    #[test]
    fn a_file_that_is_wrong_says_where() {
        let key = |more: &str| {
            let (salt, hash) = ("00".repeat(16), "00".repeat(32));
            format!("[[key]]\nid = \"A\"\nname = \"\"\nsalt = \"{salt}\"\nhash = \"{hash}\"\ncreated = \"\"\n{more}")
        };
        assert!(KeysFile::parse(&key("")).is_ok());
        for (text, words) in [
            (key("colour = 1"), "colour"),
            (key("expires = \"soon\""), "expires"),
            (key("").replace("\"A\"", "\"A B\""), "id"),
            (key("").replace("hash = \"00", "hash = \"0"), "hash"),
            (key("[[key.allow]]\nactions = [\"fly\"]\nnames = [\"*\"]"), "fly"),
            (key("[[key.allow]]\nactions = [\"views\"]\nnames = [\"a/b\"]"), "a/b"),
            (key("[key.usage]\nrate = 0.0"), "rate"),
            (key("[key.usage]\nquota = 5"), "per"),
            (key("") + &key(""), "twice"),
        ] {
            let error = format!("{:#}", KeysFile::parse(&text).expect_err(words));
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn keys_are_removed_by_id_or_by_a_name_that_is_theirs_alone() {
        let entry = |name: &str| KeyEntry::generate(name, Vec::new(), None, None).expect("random bytes").0;
        let mut file = KeysFile { keys: vec![entry("a"), entry("b"), entry("b")] };
        assert!(file.remove("c").is_err() && file.remove("b").is_err());
        let id = file.keys[2].id.clone();
        assert_eq!(file.remove(&id).expect("an id").id, id);
        assert_eq!(file.remove("b").expect("a name").name, "b");
        assert_eq!(file.keys.len(), 1);
    }

    #[test]
    fn all_keys_that_are_made_at_the_same_time_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.toml");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let (entry, _) = KeyEntry::generate("phone", Vec::new(), None, None).expect("random bytes");
                        let added = |file: &mut KeysFile| {
                            file.add(entry);
                            Ok(())
                        };
                        KeysFile::change(&path, added).expect("added");
                    }
                });
            }
        });
        assert_eq!(KeysFile::read(&path).expect("read").expect("there").keys.len(), 80);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn nobody_else_may_read_what_is_written() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/keys.toml");
        for _ in 0..2 {
            KeysFile::default().write(&path).expect("written");
            assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(path.parent().expect("a folder")).expect("a folder").count(), 1);
    }
}
