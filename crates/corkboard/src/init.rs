//! `corkboard init`: the default pipeline as files to change.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use engine::definitions::Definitions;

use crate::say::say;

const SETTINGS: &str = "\
# Settings of this pipeline. `corkboard default-config` prints all there are, with their
# meaning; what does not stand here has its default.

[definitions]
# streams/ and views/ lie beside this file. `corkboard check --config corkboard.toml` tells
# whether they are sound.
folder = \".\"
";

/// Writes settings, streams and views into `folder`; a file that is there is not overwritten.
pub fn write(folder: &Path) -> Result<()> {
    let own = [("corkboard.toml".to_owned(), SETTINGS)];
    let files: Vec<(String, &str)> = own.into_iter().chain(Definitions::default_files()).collect();
    for (name, _) in &files {
        let path = folder.join(name);
        ensure!(!path.exists(), "{} exists already: choose another folder; nothing was written", path.display());
    }
    for (name, text) in &files {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    say!("wrote {} files to {}", files.len(), folder.display())?;
    say!(
        "change them, then: corkboard check --config {0}; corkboard up --config {0}",
        folder.join("corkboard.toml").display()
    )?;
    Ok(())
}
