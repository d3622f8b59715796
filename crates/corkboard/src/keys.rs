//! `corkboard keys`: makes, lists and removes the keys that a server with `auth.mode = "keys"` takes.

use std::path::Path;

use anyhow::{Result, ensure};
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use clap::{Args, Subcommand};
use model::config::AuthConfig;
use server::auth::{
    Period, Permission, Plan, ServerSecret,
    keys::{KeyEntry, KeysFile},
};

use crate::say::say;

#[derive(Subcommand)]
pub enum KeysCommand {
    /// Make a key and show it, once.
    Add(AddArgs),
    /// List the keys and what they may do.
    List,
    /// Remove a key; servers refuse it a second later.
    Remove {
        /// Its id, or its name where only one key has it.
        key: String,
    },
}

#[derive(Args)]
pub struct AddArgs {
    /// Whom or what the key is for.
    name: String,

    /// Actions (produce, consume, describe, admin, views, tasks) on names of topics, views or
    /// tasks, such as produce,describe:0a3.* or views:*; may be given several times
    #[arg(long, value_name = "ACTIONS:NAMES", required = true)]
    allow: Vec<Permission>,

    /// Requests a second, in the long run [default: no limit]
    #[arg(long)]
    rate: Option<f64>,

    /// Requests that may come at once after a quiet time [default: as many as --rate]
    #[arg(long, requires = "rate")]
    burst: Option<u32>,

    /// Requests in a day, week or month, such as 10000/day [default: no limit]
    #[arg(long, value_name = "N/PERIOD", value_parser = parse_quota)]
    quota: Option<(u64, Period)>,

    /// When the key ends, such as 2030-01-31 or 2030-01-31T12:00:00Z [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    expires: Option<DateTime<Utc>>,
}

pub fn run(command: KeysCommand, config: &AuthConfig) -> Result<()> {
    let path = Path::new(&config.keys_file);
    match command {
        KeysCommand::Add(args) => add(args, path, Path::new(&config.secret_file)),
        KeysCommand::List => list(path),
        KeysCommand::Remove { key } => remove(&key, path),
    }
}

fn add(args: AddArgs, path: &Path, secret_path: &Path) -> Result<()> {
    let AddArgs { name, allow, rate, burst, quota, expires } = args;
    let (quota, per) = quota.unzip();
    let plan = (rate.is_some() || quota.is_some()).then_some(Plan { rate, burst, quota, per });
    let (entry, text) = KeyEntry::generate(&name, allow, plan, expires)?;
    let id = entry.id.clone();
    let signing_secret = KeysFile::change(path, |file| {
        let signing_secret = ServerSecret::read_or_create(secret_path)?.signing_secret(&entry)?;
        file.add(entry);
        Ok(signing_secret)
    })?;
    say!("id      {id}")?;
    say!("key     {}", text.reveal())?;
    say!("secret  {signing_secret}")?;
    eprintln!(
        "The key goes into x-api-key, Authorization: Bearer, or Basic with the id as user. Clients that sign, such as \
         AWS's, take the id as access key id and the secret as secret access key. Neither is shown again."
    );
    Ok(())
}

fn list(path: &Path) -> Result<()> {
    let Some(file) = KeysFile::read(path)? else {
        say!("there is no {} yet; `corkboard keys add` makes it", path.display())?;
        return Ok(());
    };
    if file.keys.is_empty() {
        say!("there is no key")?;
    }
    for key in &file.keys {
        let ends = key.expires.as_deref().map(|at| format!(", ends {at}")).unwrap_or_default();
        say!("{}  {}  (made {}{ends})", key.id, key.name, key.created)?;
        for permission in &key.permissions {
            let actions: Vec<String> = permission.actions.iter().map(ToString::to_string).collect();
            say!("    {}:{}", actions.join(","), permission.names.join(","))?;
        }
        if let Some(plan) = &key.plan {
            say!("    {}", describe(plan))?;
        }
    }
    Ok(())
}

fn describe(plan: &Plan) -> String {
    let rate = plan.rate.map(|rate| format!("{rate} requests a second"));
    let burst = plan.burst.map(|burst| format!("{burst} at once"));
    let quota = plan.quota.zip(plan.per).map(|(quota, per)| format!("{quota} a {per}"));
    [rate, burst, quota].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn remove(key: &str, path: &Path) -> Result<()> {
    ensure!(path.exists(), "there is no {}", path.display());
    let removed = KeysFile::change(path, |file| file.remove(key))?;
    say!("removed {}  {}", removed.id, removed.name)?;
    Ok(())
}

fn parse_quota(text: &str) -> Result<(u64, Period), String> {
    let (n, period) = text.split_once('/').ok_or_else(|| format!("{text:?} is no quota such as 10000/day"))?;
    let n = n.parse().map_err(|_| format!("{n:?} is no number of requests"))?;
    Ok((n, period.parse()?))
}

fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(day) = text.parse::<NaiveDate>() {
        return Ok(day.and_time(NaiveTime::MIN).and_utc());
    }
    let time = DateTime::parse_from_rfc3339(text);
    time.map(|time| time.to_utc()).map_err(|_| format!("{text:?} is no time such as 2030-01-31T12:00:00Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_and_times_are_read_as_people_write_them() {
        assert_eq!(parse_quota("10/week"), Ok((10, Period::Week)));
        assert!(parse_quota("10").is_err() && parse_quota("x/day").is_err() && parse_quota("1/hour").is_err());
        for text in ["2030-01-31", "2030-01-31T00:00:00Z", "2030-01-31T01:00:00+01:00"] {
            assert_eq!(parse_time(text).map(|time| time.to_rfc3339()), Ok("2030-01-31T00:00:00+00:00".to_owned()));
        }
        assert!(parse_time("soon").is_err());
    }
}
