//! Programs of other languages that a command needs: found, or installed where a machine is made for
//! that, or an error that says how.

use std::{env, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::process;

/// What is called and where Debian has it.
pub(crate) struct Toolchain {
    pub(crate) programs: &'static [&'static str],
    pub(crate) packages: &'static [&'static str],
    /// The version that is wanted, and where else it is to be had.
    pub(crate) otherwise: &'static str,
}

impl Toolchain {
    /// Nothing if all programs are there. As root on a Debian they are installed: so are machines that
    /// exist to run tests, and nobody else runs them as root.
    pub(crate) fn ensure(&self) -> Result<()> {
        let Some(program) = self.missing() else { return Ok(()) };
        let packages = self.packages.join(" ");
        let advice =
            format!("`{program}` is missing: install {} (on Debian: apt-get install {packages})", self.otherwise);
        if !(is_there("apt-get") && process::output(Command::new("id").arg("-u"))?.trim() == "0") {
            bail!(advice);
        }
        println!("installing {packages}, because `{program}` is missing");
        let install = || {
            process::run(Command::new("apt-get").args(["update", "--quiet", "--quiet"]))?;
            let mut install = Command::new("apt-get");
            install.args(["install", "--yes", "--quiet", "--quiet", "--no-install-recommends"]).args(self.packages);
            // In this runlevel no service starts by itself.
            process::run(install.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1"))
        };
        install().with_context(|| advice.clone())?;
        match self.missing() {
            None => Ok(()),
            Some(program) => bail!("{packages} came without `{program}`: install {}", self.otherwise),
        }
    }

    fn missing(&self) -> Option<&'static str> {
        self.programs.iter().copied().find(|program| !is_there(program))
    }
}

fn is_there(program: &str) -> bool {
    let paths = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&paths).any(|folder| is_program(&folder.join(program)))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let of = |programs| Toolchain { programs, packages: &[], otherwise: "it" };
        assert_eq!(of(&["sh", "ls"]).missing(), None);
        assert_eq!(of(&["sh", "corkboard-no-such-program"]).missing(), Some("corkboard-no-such-program"));
    }
}
