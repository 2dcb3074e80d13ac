//! `landmarl checkpoint pull`: a file of a running learner, whole or not at all.
//!
//! Bytes gather in `FILE.part`, beside `FILE.part.sha256`, the digest of the
//! whole that they belong to: an interrupted pull goes on where it was.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use backon::BackoffBuilder as _;
use common::imaging::manifest::hex;
use indicatif::ProgressBar;
use proto::messages::checkpoints::{CheckpointChunk, Part, PullCheckpoint, is_file_name};
use proto::transport::channel::{Channel, learner_client};
use proto::transport::retry::{backoff, is_retryable};
use proto::transport::security::{Role, Security};
use proto::wire;
use proto::wire::learner_client::LearnerClient;
use sha2::{Digest as _, Sha256};
use tonic::{Code, Status};

use super::remote::{no_answer, runtime, security};
use crate::Outcome;
use crate::output::console;
use crate::output::failure::{Advice, Exit};

/// Attempts without a new byte before giving up.
const TRIES: usize = 5;

/// Fetch a checkpoint or weights file of a running learner
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The learner: host:port
    #[arg(long, value_name = "ADDRESS")]
    from: String,
    /// Configuration file that names certificates and token; repeatable, later ones win
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// `best`, `last`, or a name that `checkpoint list --from` shows
    #[arg(default_value = "best", value_name = "NAME")]
    name: String,
    /// Where it goes [default: its name, in this folder]
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  landmarl checkpoint pull --from learner:7400
  landmarl checkpoint pull --from learner:7400 last -o kept/last.safetensors

What arrived of an interrupted pull stays in FILE.part; the same command goes on
from there. The file is checked against its SHA-256 before it gets its name.

Exit codes: 0 done, 1 failed, 4 no such file or damaged, 5 no learner answers.";

pub fn run(args: &Args) -> Outcome {
    let name = default_name(&args.name)?;
    let target = args.out.clone().unwrap_or_else(|| PathBuf::from(name));
    let begin = Instant::now();
    let mut pull = Pull::new(args, &target)?;
    let pulled = runtime()?.block_on(pull.until_whole());
    pull.bar.finish_and_clear();
    let whole = pulled?;
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    let megabytes = whole.bytes as f64 / 1e6;
    console::note(&format!(
        "{megabytes:.1} MB in {:.1} s, sha256 {}",
        begin.elapsed().as_secs_f64(),
        hex(&whole.sha256)
    ));
    console::data(&format!("{}\n", target.display()))?;
    Ok(Exit::Done)
}

fn default_name(name: &str) -> Result<String, Advice> {
    if !is_file_name(name) {
        let message = format!("{name:?} is not the name of a checkpoint");
        let hint = "names have no folder: `landmarl checkpoint list --from ADDRESS` shows them";
        return Err(Advice::new(Exit::Usage, message).hint(hint));
    }
    Ok(match name {
        "best" | "last" => format!("{name}.safetensors"),
        other => other.to_owned(),
    })
}

/// A file on its way.
struct Pull {
    address: String,
    security: Security,
    name: String,
    target: PathBuf,
    part: PathBuf,
    digest: PathBuf,
    bar: ProgressBar,
}

fn beside(target: &Path, suffix: &str) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// How an attempt ended.
enum Attempt {
    /// All bytes of this whole are in the part.
    Complete(Part),
    /// It broke off; whether any byte came.
    Broken { status: Status, progress: bool },
}

impl Pull {
    fn new(args: &Args, target: &Path) -> anyhow::Result<Self> {
        if let Some(folder) = target.parent().filter(|f| !f.as_os_str().is_empty()) {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let template = "{bar:40} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
        Ok(Self {
            address: args.from.clone(),
            security: security(&args.config)?,
            name: args.name.clone(),
            target: target.to_owned(),
            part: beside(target, ".part"),
            digest: beside(target, ".part.sha256"),
            bar: console::bar(0, template),
        })
    }

    /// Pulls, goes on after interruptions, checks, and names the file.
    async fn until_whole(&mut self) -> anyhow::Result<Part> {
        let mut client = learner_client(self.security.connect(&self.address, Role::Learner)?);
        let mut waits = backoff(TRIES).build();
        let mut damaged = false;
        loop {
            match self.attempt(&mut client).await? {
                Attempt::Complete(whole) => {
                    if self.fits(whole)? {
                        self.finish()?;
                        return Ok(whole);
                    }
                    self.forget();
                    if std::mem::replace(&mut damaged, true) {
                        let message = format!(
                            "{} came damaged twice: its SHA-256 is not the one announced",
                            self.target.display()
                        );
                        let hint = "check this disk and the network on the way";
                        return Err(Advice::new(Exit::Data, message).hint(hint).into());
                    }
                    console::note("the part that was here is damaged: pulling the file anew");
                }
                Attempt::Broken { status, progress } => {
                    if progress {
                        waits = backoff(TRIES).build();
                    }
                    let again = waits.next().filter(|_| may_pass(&status));
                    let Some(wait) = again else {
                        return Err(self.gave_up(&status).into());
                    };
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    fn gave_up(&self, status: &Status) -> Advice {
        let advice = no_answer(&self.address, status);
        match self.arrived() {
            Some(part) if part.bytes > 0 => advice.hint(format!(
                "{} bytes are in {}; the same command goes on from there",
                part.bytes,
                self.part.display()
            )),
            _ => advice,
        }
    }

    /// What an earlier attempt left, if it asked for the same.
    fn arrived(&self) -> Option<Part> {
        let text = fs::read_to_string(&self.digest).ok()?;
        let (sha256, name) = text.trim().split_once("  ")?;
        let bytes = fs::metadata(&self.part).ok()?.len();
        (name == self.name).then_some(Part {
            bytes,
            sha256: unhex(sha256)?,
        })
    }

    async fn attempt(&self, client: &mut LearnerClient<Channel>) -> anyhow::Result<Attempt> {
        let broken = |status: Status, progress| Ok(Attempt::Broken { status, progress });
        let request = PullCheckpoint {
            name: self.name.clone(),
            part: self.arrived(),
        };
        let opened = client.pull_checkpoint(wire::PullCheckpointRequest::from(request));
        let mut stream = match opened.await {
            Ok(reply) => reply.into_inner(),
            Err(status) => return broken(status, false),
        };
        let mut writing: Option<Writing> = None;
        loop {
            let chunk = match stream.message().await {
                Ok(Some(chunk)) => CheckpointChunk::try_from(chunk)?,
                Ok(None) => {
                    let status = Status::unavailable("the learner ended before the file's end");
                    return broken(status, writing.is_some());
                }
                Err(status) => return broken(status, writing.is_some()),
            };
            let whole = Part {
                bytes: chunk.total_bytes,
                sha256: chunk.sha256,
            };
            let file = match &mut writing {
                Some(file) => file,
                None => writing.insert(self.open(&chunk)?),
            };
            let at = file.write(&chunk).with_context(|| self.cannot_write())?;
            self.bar.set_position(at);
            if at == whole.bytes {
                return Ok(Attempt::Complete(whole));
            }
        }
    }

    fn cannot_write(&self) -> String {
        format!("cannot write {}", self.part.display())
    }

    /// The part, at the place where this chunk goes.
    fn open(&self, first: &CheckpointChunk) -> anyhow::Result<Writing> {
        let before = self.arrived();
        let goes_on = before.is_some_and(|p| p.sha256 == first.sha256 && p.bytes == first.offset);
        if first.offset > 0 && !goes_on {
            anyhow::bail!(
                "{} sends byte {} first, and that is not what was asked for",
                self.address,
                first.offset
            );
        }
        if first.offset == 0 {
            if before.is_some_and(|p| p.bytes > 0) {
                console::note("the learner has another file under this name now: beginning anew");
            }
            // As sha256sum writes it; the learner would go on with whatever file this is.
            let line = format!("{}  {}\n", hex(&first.sha256), self.name);
            fs::write(&self.digest, line)
                .with_context(|| format!("cannot write {}", self.digest.display()))?;
        }
        let mut options = File::options();
        options.create(true).write(true);
        let options = match first.offset {
            0 => options.truncate(true),
            _ => options.append(true),
        };
        let file = options
            .open(&self.part)
            .with_context(|| self.cannot_write())?;
        self.bar.set_length(first.total_bytes);
        self.bar.set_position(first.offset);
        // What was there before came at no speed of today.
        self.bar.reset_eta();
        Ok(Writing {
            file,
            at: first.offset,
        })
    }

    fn fits(&self, whole: Part) -> anyhow::Result<bool> {
        let mut file = File::open(&self.part)?;
        let mut hasher = Hasher(Sha256::new());
        let bytes = io::copy(&mut file, &mut hasher)?;
        let sha256: [u8; 32] = hasher.0.finalize().into();
        Ok(bytes == whole.bytes && sha256 == whole.sha256)
    }

    /// The file is on the disk before its name is.
    fn finish(&self) -> anyhow::Result<()> {
        let named = File::options()
            .write(true)
            .open(&self.part)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&self.part, &self.target));
        named.with_context(|| format!("cannot write {}", self.target.display()))?;
        let _ = fs::remove_file(&self.digest);
        Ok(())
    }

    fn forget(&self) {
        let _ = fs::remove_file(&self.part);
        let _ = fs::remove_file(&self.digest);
    }
}

/// Whether the same call may succeed a moment later. A connection that breaks
/// off in the middle of a stream is told in several ways.
fn may_pass(status: &Status) -> bool {
    is_retryable(status)
        || matches!(
            status.code(),
            Code::Unknown | Code::Internal | Code::Cancelled
        )
}

/// A part that is being written.
struct Writing {
    file: File,
    at: u64,
}

impl Writing {
    /// Where the next chunk goes.
    fn write(&mut self, chunk: &CheckpointChunk) -> io::Result<u64> {
        if chunk.offset != self.at {
            let text = format!("byte {} came where {} follows", chunk.offset, self.at);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.file.write_all(&chunk.data)?;
        self.at += chunk.data.len() as u64;
        Ok(self.at)
    }
}

struct Hasher(Sha256);

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_read_back_and_names_get_their_extension() {
        let digest: [u8; 32] = Sha256::digest("x").into();
        assert_eq!(unhex(&hex(&digest)), Some(digest));
        assert_eq!((unhex("12"), unhex(&"é".repeat(32))), (None, None));
        assert_eq!(default_name("best").unwrap(), "best.safetensors");
        let own = "update-00000020.safetensors";
        assert_eq!(default_name(own).unwrap(), own);
        assert!(default_name("../best").is_err());
    }
}
