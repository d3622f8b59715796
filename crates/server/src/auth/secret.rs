//! The server's own secret, and the signing secrets that are derived from it.
//!
//! Whoever checks a signature of AWS's kind must know the very secret that made it, so a hash of it
//! is not enough. Nothing is stored for it: a key's signing secret is HMAC-SHA256 of its id and salt
//! under one secret of the server, which lies in a file of its own that only its owner may read.
//! The keys file alone is worth nothing to a thief, and a new server secret ends all signing secrets.

use std::{fmt, fs, io, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::hmac;

use super::{
    hex,
    keys::{KeyEntry, random, write_whole},
};

const PURPOSE: &[u8] = b"corkboard signing secret 1";

pub struct ServerSecret(hmac::Key);

impl fmt::Debug for ServerSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerSecret(…)")
    }
}

impl ServerSecret {
    /// Reads the file. A file that others may read is refused.
    pub fn read(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).with_context(|| {
            format!("cannot read {} (auth.secret_file); `corkboard keys add` makes it", path.display())
        })?;
        ensure!(metadata.len() < 1024, "{} is no server secret", path.display());
        check_mode(path, &metadata)?;
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let Some(bytes) = hex::decode::<32>(text.trim()) else {
            bail!("{} is no server secret: it must hold 64 hexadecimal digits", path.display());
        };
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// Reads the file, which is made first where there is none.
    pub fn read_or_create(path: &Path) -> Result<Self> {
        if !path.exists() {
            let text = format!("{}\n", hex::encode(&random::<32>()?));
            // Of two who make one at the same time, the second finds that of the first.
            write_whole(path, text.as_bytes(), |from, to| match fs::hard_link(from, to) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            })?;
        }
        Self::read(path)
    }

    /// A key's secret for signing requests (AWS: secret access key).
    pub fn signing_secret(&self, entry: &KeyEntry) -> Result<String> {
        let salt: [u8; 16] = hex::decode(&entry.salt).context("salt is not 32 hexadecimal digits")?;
        Ok(self.derive(&entry.id, &salt))
    }

    pub(super) fn derive(&self, id: &str, salt: &[u8; 16]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        for part in [PURPOSE, salt, id.as_bytes()] {
            context.update(part);
        }
        BASE64_URL_SAFE_NO_PAD.encode(context.sign())
    }
}

fn check_mode(path: &Path, metadata: &fs::Metadata) -> Result<()> {
    let mode = metadata.permissions().mode() & 0o777;
    ensure!(mode & 0o077 == 0, "{} can be read by others (mode {mode:o}); do: chmod 600", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signing_secret_is_the_same_again_and_each_key_has_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.secret");
        let secret = ServerSecret::read_or_create(&path).expect("made");
        let again = ServerSecret::read_or_create(&path).expect("read");
        assert_eq!(secret.derive("A", &[1; 16]), again.derive("A", &[1; 16]));
        assert_ne!(secret.derive("A", &[1; 16]), secret.derive("B", &[1; 16]));
        assert_ne!(secret.derive("A", &[1; 16]), secret.derive("A", &[2; 16]));
        let text = fs::read_to_string(&path).expect("there");
        assert!(!format!("{secret:?}").contains(text.trim()));
    }

    #[test]
    fn all_who_make_a_secret_at_the_same_time_have_the_same() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("keys.secret");
            let derived = std::thread::scope(|scope| {
                let make = || ServerSecret::read_or_create(&path).expect("made or read").derive("A", &[1; 16]);
                let making: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
                making.into_iter().map(|made| made.join().expect("no panic")).collect::<Vec<_>>()
            });
            assert!(derived.iter().all(|one| *one == derived[0]));
        }
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.secret");
        ServerSecret::read_or_create(&path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("changed");
        assert!(ServerSecret::read(&path).expect_err("readable").to_string().contains("chmod 600"));
        fs::write(&path, "short").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("changed");
        assert!(ServerSecret::read(&path).expect_err("short").to_string().contains("64 hexadecimal"));
    }
}
