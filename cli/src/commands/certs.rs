//! `landmarl certs`: an authority, certificates of roles and a join token.

mod files;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use common::config::{ClusterConfig, Config};
use common::run::run_folder::rfc3339;
use proto::transport::security::issue::{Authority, Pair, token};
use proto::transport::security::{Role, Security};

use crate::Outcome;
use crate::output::console;
use crate::output::failure::{Advice, Exit};
use files::{Access, Folder};

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const TOKEN: &str = "token";

/// Create the certificates and the join token of a cluster.
///
/// Writes to DIR: ca.pem, the authority that all processes trust; ca.key, the
/// authority's private key; ROLE.pem and ROLE.key for each role; token, the secret
/// that all processes share. Only the owner can read the keys and the token.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Output folder; created if missing
    #[arg(long, short = 'o', value_name = "DIR")]
    out: PathBuf,
    /// Validity of the certificates in days
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..))]
    days: u32,
    /// Do nothing if DIR already has all files; fail if it has only some of them
    #[arg(long)]
    if_missing: bool,
    /// Only these roles: learner, replay, actor, evaluator, operator, monitor [default: all]
    #[arg(long, value_name = "ROLE", num_args = 1..)]
    role: Vec<Role>,
    /// Additional host names and IP addresses in the certificates, for other clients
    /// such as browsers
    #[arg(long, value_name = "NAME", num_args = 1..)]
    host: Vec<String>,
    /// Sign with the existing authority in DIR and reuse its token
    #[arg(long, value_name = "DIR", conflicts_with = "no_ca_key")]
    ca: Option<PathBuf>,
    /// Do not write ca.key; this authority can then issue no further certificates
    #[arg(long)]
    no_ca_key: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  landmarl certs --out certs
  landmarl certs --out certs --if-missing --no-ca-key       as `docker compose up` does
  landmarl certs --out renewed --ca certs --days 90         new certificates, the same authority
  landmarl certs --out gpu7 --ca certs --role actor         for one more machine of actors
  landmarl certs --out certs --host learner.example.org     for curl and Prometheus by that name

Then, for each process (ROLE is its own):
  LANDMARL__CLUSTER__CA=certs/ca.pem
  LANDMARL__CLUSTER__CERT=certs/ROLE.pem
  LANDMARL__CLUSTER__KEY=certs/ROLE.key
  LANDMARL__CLUSTER__TOKEN_FILE=certs/token";

pub fn run(args: &Args) -> Outcome {
    let roles = roles(args);
    let folder = Folder::new(&args.out);
    let wanted = names(args, &roles);
    let (there, missing): (Vec<String>, Vec<String>) =
        wanted.iter().cloned().partition(|name| folder.has(name));
    let made = match (there.as_slice(), missing.as_slice()) {
        ([], _) => make(args, &folder, &roles).map(|()| true)?,
        (_, []) if args.if_missing => false,
        (_, missing) => return Err(refuse(args, &there, missing).into()),
    };
    // The services' own validation, before any service runs it.
    let days_left = check(&args.out, &roles)?;
    if args.json {
        console::json(&serde_json::json!({
            "folder": args.out, "made": made, "files": wanted, "days_left": days_left,
        }))?;
    } else {
        print_files(args, &wanted, made, days_left);
    }
    Ok(Exit::Done)
}

fn roles(args: &Args) -> Vec<Role> {
    let asked = |role: &Role| args.role.is_empty() || args.role.contains(role);
    Role::ALL.into_iter().filter(asked).collect()
}

/// The files of a complete set.
fn names(args: &Args, roles: &[Role]) -> Vec<String> {
    let with_key = args.ca.is_none() && !args.no_ca_key;
    let shared = [Some(CA), with_key.then_some(CA_KEY), Some(TOKEN)];
    let pairs = roles
        .iter()
        .flat_map(|role| [format!("{role}.pem"), format!("{role}.key")]);
    let shared = shared.into_iter().flatten().map(str::to_owned);
    shared.chain(pairs).collect()
}

fn refuse(args: &Args, there: &[String], missing: &[String]) -> Advice {
    let dir = args.out.display();
    if missing.is_empty() {
        return Advice::new(Exit::Failed, format!("{dir} already has certificates"))
            .hint("keep them with --if-missing, or choose another folder with --out");
    }
    let (there, missing) = (there.join(", "), missing.join(", "));
    let what = format!("{dir} has {there}, but not {missing}");
    let hint = "restore the missing files, or move the folder away and create all files again";
    Advice::new(Exit::Failed, what).hint(hint)
}

fn make(args: &Args, folder: &Folder, roles: &[Role]) -> anyhow::Result<()> {
    let (authority, secret) = match &args.ca {
        None => (Authority::new(args.days)?, token()?),
        Some(dir) => existing(dir)?,
    };
    let Pair { certificate, key } = authority.pair();
    let mut all = vec![(CA.to_owned(), certificate, Access::Everybody)];
    if args.ca.is_none() && !args.no_ca_key {
        all.push((CA_KEY.to_owned(), key, Access::Owner));
    }
    all.push((TOKEN.to_owned(), secret, Access::Owner));
    for role in roles {
        let pair = authority.certificate(*role, &args.host, args.days)?;
        all.push((format!("{role}.pem"), pair.certificate, Access::Everybody));
        all.push((format!("{role}.key"), pair.key, Access::Owner));
    }
    folder.prepare()?;
    for (name, text, access) in &all {
        folder.write(name, text, *access)?;
    }
    Ok(())
}

/// Reads the authority and the token from another folder.
fn existing(dir: &Path) -> anyhow::Result<(Authority, String)> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path).map_err(|e| {
            Advice::new(Exit::Failed, format!("cannot read {}: {e}", path.display()))
                .hint("--ca takes a folder that `landmarl certs` wrote, with its ca.key")
        })
    };
    let pair = Pair {
        certificate: read(CA)?,
        key: read(CA_KEY)?,
    };
    let authority = Authority::again(&pair)
        .with_context(|| format!("load the authority in {}", dir.display()))?;
    Ok((authority, read(TOKEN)?))
}

/// Checks every certificate and returns the fewest days for which one remains valid.
fn check(dir: &Path, roles: &[Role]) -> anyhow::Result<Option<u64>> {
    let path = |name: &str| dir.join(name).display().to_string();
    let base = Config::defaults()?.cluster;
    let mut days = Vec::new();
    for role in roles {
        let cluster = ClusterConfig {
            ca: path(CA),
            cert: path(&format!("{role}.pem")),
            key: path(&format!("{role}.key")),
            token_file: path(TOKEN),
            ..base.clone()
        };
        days.extend(Security::from_config(&cluster)?.days_left());
    }
    Ok(days.into_iter().min())
}

fn print_files(args: &Args, names: &[String], made: bool, days_left: Option<u64>) {
    let dir = args.out.display();
    let days = days_left.unwrap_or(0);
    let end = SystemTime::now() + Duration::from_secs(days * 24 * 60 * 60);
    let date: String = rfc3339(end).chars().take_while(|c| *c != 'T').collect();
    if !made {
        return console::note(&format!(
            "{dir} has all certificates; they are valid for {days} more days, until {date}"
        ));
    }
    let mut text = format!("{dir}: certificates for {days} days, until {date}\n");
    for name in names {
        let what = match name.as_str() {
            CA => "for every process: the trusted authority",
            CA_KEY => "for no process: signs certificates; keep it away from the services",
            TOKEN => "for every process: the shared secret",
            pem if pem.ends_with(".pem") => "for processes of this role: the certificate",
            _ => "for processes of this role: the private key",
        };
        text.push_str(&format!("  {name:<14} {what}\n"));
    }
    console::note(&format!(
        "{text}settings of each process, with its own role for ROLE:
  LANDMARL__CLUSTER__CA={dir}/{CA}
  LANDMARL__CLUSTER__CERT={dir}/ROLE.pem
  LANDMARL__CLUSTER__KEY={dir}/ROLE.key
  LANDMARL__CLUSTER__TOKEN_FILE={dir}/{TOKEN}
(or cluster.ca, cert, key and token_file in its --config file)"
    ));
}
