//! `landmarl checkpoint pull`: downloads a file from a running learner atomically.
//!
//! Bytes are collected in `FILE.part`, next to `FILE.part.sha256`, the digest of the
//! complete file. An interrupted pull resumes from both.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use backon::BackoffBuilder as _;
use common::imaging::manifest::hex;
use indicatif::ProgressBar;
use proto::messages::checkpoints::{Part, PullCheckpoint, is_file_name};
use proto::messages::chunks::{Assembly, Chunk, ChunkError, Whole};
use proto::transport::channel::{Channel, learner_client};
use proto::transport::retry::{backoff, is_retryable};
use proto::transport::security::{Role, Security};
use proto::wire;
use proto::wire::learner_client::LearnerClient;
use tonic::{Code, Status};

use super::remote::{call_failed, runtime, security};
use crate::Outcome;
use crate::output::console;
use crate::output::failure::{Advice, Exit};
use crate::output::new_file::Replace;
use crate::output::table::megabytes;

/// Attempts without a new byte before giving up.
const TRIES: usize = 5;

/// Download a checkpoint or weights file from a running learner
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Address of the learner: host:port
    #[arg(long, value_name = "ADDRESS")]
    from: String,
    /// Configuration file with certificates and token; repeatable, later files win
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// `best`, `last`, or a name from `checkpoint list --from`
    #[arg(default_value = "best", value_name = "NAME")]
    name: String,
    /// Output file [default: the file's name, in the current folder]
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    replace: Replace,
}

const EXAMPLES: &str = "\
Examples:
  landmarl checkpoint pull --from learner:7400
  landmarl checkpoint pull --from learner:7400 --force        newer weights, in place of earlier ones
  landmarl checkpoint pull --from learner:7400 last -o kept/last.safetensors

An interrupted pull leaves FILE.part; the same command resumes it. The SHA-256 of
the file is verified before the file is renamed.

Exit codes: 0 done, 1 failed, 4 no such file or damaged, 5 no response from the learner.";

pub fn run(args: &Args) -> Outcome {
    let name = default_name(&args.name)?;
    let target = args.out.clone().unwrap_or_else(|| PathBuf::from(name));
    args.replace.check(&target)?;
    let begin = Instant::now();
    let mut pull = Pull::new(args, &target)?;
    let pulled = runtime()?.block_on(pull.download());
    pull.bar.finish_and_clear();
    let whole = pulled?;
    console::note(&format!(
        "{} MB in {:.1} s, sha256 {}",
        megabytes(whole.bytes),
        begin.elapsed().as_secs_f64(),
        hex(&whole.sha256)
    ));
    console::data(&format!("{}\n", target.display()))?;
    Ok(Exit::Done)
}

fn default_name(name: &str) -> Result<String, Advice> {
    if !is_file_name(name) {
        let message = format!("{name:?} is not the name of a checkpoint");
        let hint = "`landmarl checkpoint list --from ADDRESS` shows the names";
        return Err(Advice::new(Exit::Usage, message).hint(hint));
    }
    Ok(match name {
        "best" | "last" => format!("{name}.safetensors"),
        other => other.to_owned(),
    })
}

/// A download in progress.
struct Pull {
    address: String,
    security: Security,
    name: String,
    target: PathBuf,
    part: PathBuf,
    digest: PathBuf,
    bar: ProgressBar,
}

/// How an attempt ended.
enum Attempt {
    /// The partial file is complete.
    Complete(Whole),
    /// The digest of the received bytes differs from the announced one.
    Damaged,
    /// The stream failed; `progress`: at least one byte arrived.
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
            part: target.with_added_extension("part"),
            digest: target.with_added_extension("part.sha256"),
            bar: console::bar(0, template),
        })
    }

    /// Pulls, resumes after interruptions, verifies the digest, and renames the file.
    async fn download(&mut self) -> anyhow::Result<Whole> {
        let mut client = learner_client(self.security.connect(&self.address, Role::Learner)?);
        let mut waits = backoff(TRIES).build();
        let mut damaged = false;
        loop {
            match self.attempt(&mut client).await? {
                Attempt::Complete(whole) => {
                    self.finish()?;
                    return Ok(whole);
                }
                Attempt::Damaged => {
                    self.discard();
                    if std::mem::replace(&mut damaged, true) {
                        let target = self.target.display();
                        let message = format!("{target} was damaged twice: wrong SHA-256");
                        let hint = "check the disk and the network";
                        return Err(Advice::new(Exit::Data, message).hint(hint).into());
                    }
                    console::note("the partial file is damaged: downloading the whole file again");
                }
                Attempt::Broken { status, progress } => {
                    if progress {
                        waits = backoff(TRIES).build();
                    }
                    let Some(wait) = waits.next().filter(|_| may_retry(&status)) else {
                        return Err(self.gave_up(&status).into());
                    };
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    fn gave_up(&self, status: &Status) -> Advice {
        let advice = call_failed(&self.address, status);
        match self.arrived() {
            Some(part) if part.bytes > 0 => advice.hint(format!(
                "{} bytes are in {}; run the same command again to resume",
                part.bytes,
                self.part.display()
            )),
            _ => advice,
        }
    }

    /// The partial file of an earlier attempt at the same name.
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
                Ok(Some(chunk)) => Chunk::try_from(chunk)?,
                Ok(None) => {
                    let status = Status::unavailable("the stream ended before the end of the file");
                    return broken(status, writing.is_some());
                }
                Err(status) => return broken(status, writing.is_some()),
            };
            let writing = match &mut writing {
                Some(writing) => writing,
                None => writing.insert(self.open(&chunk).await?),
            };
            match writing.assembly.push(&chunk) {
                Err(ChunkError::Hash) => return Ok(Attempt::Damaged),
                complete => {
                    let complete = complete.with_context(|| self.address.clone())?;
                    let written = writing.file.write_all(&chunk.data);
                    written.with_context(|| self.cannot_write())?;
                    self.bar.inc(chunk.data.len() as u64);
                    if complete {
                        return Ok(Attempt::Complete(chunk.whole));
                    }
                }
            }
        }
    }

    fn cannot_write(&self) -> String {
        format!("cannot write {}", self.part.display())
    }

    /// Opens the partial file at the offset of this chunk.
    async fn open(&self, first: &Chunk) -> anyhow::Result<Writing> {
        let before = self.arrived();
        let goes_on =
            before.is_some_and(|p| p.sha256 == first.whole.sha256 && p.bytes == first.offset);
        if first.offset > 0 && !goes_on {
            let (address, offset) = (&self.address, first.offset);
            anyhow::bail!("{address} sent byte {offset} first, which was not requested");
        }
        self.bar.set_length(first.whole.bytes);
        self.bar.set_position(first.offset);
        // Bytes from an earlier attempt must not count towards the transfer rate.
        self.bar.reset_eta();
        if first.offset == 0 {
            if before.is_some_and(|p| p.bytes > 0) {
                console::note("the learner now has another file with this name: starting again");
            }
            return self.begin(first.whole);
        }
        let (whole, part) = (first.whole, File::open(&self.part)?);
        // Hashing a large partial file takes seconds; the connection must be served
        // meanwhile.
        let resumed = tokio::task::spawn_blocking(move || Assembly::resume(whole, part)).await?;
        let assembly = resumed.with_context(|| format!("cannot read {}", self.part.display()))?;
        let file = File::options().append(true).open(&self.part);
        let file = file.with_context(|| self.cannot_write())?;
        Ok(Writing { file, assembly })
    }

    /// Creates an empty partial file, and a file with its digest.
    fn begin(&self, whole: Whole) -> anyhow::Result<Writing> {
        // In the format of sha256sum, with the requested name: `best` may refer to
        // another file later.
        let line = format!("{}  {}\n", hex(&whole.sha256), self.name);
        let written = fs::write(&self.digest, line);
        written.with_context(|| format!("cannot write {}", self.digest.display()))?;
        let file = File::create(&self.part).with_context(|| self.cannot_write())?;
        let assembly = Assembly::new(whole);
        Ok(Writing { file, assembly })
    }

    /// Syncs the file to disk before it renames it.
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

    fn discard(&self) {
        let _ = fs::remove_file(&self.part);
        let _ = fs::remove_file(&self.digest);
    }
}

/// Whether the same call may succeed on retry. A connection that breaks in the
/// middle of a stream reports one of several codes.
fn may_retry(status: &Status) -> bool {
    is_retryable(status)
        || matches!(
            status.code(),
            Code::Unknown | Code::Internal | Code::Cancelled
        )
}

/// A partial file open for writing.
struct Writing {
    file: File,
    assembly: Assembly,
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let byte = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).ok();
    let bytes: Option<Vec<u8>> = (0..64).step_by(2).map(byte).collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_read_back_and_names_get_their_extension() {
        let digest = [0xa7; 32];
        assert_eq!(unhex(&hex(&digest)), Some(digest));
        assert_eq!((unhex("12"), unhex(&"é".repeat(32))), (None, None));
        assert_eq!(default_name("best").unwrap(), "best.safetensors");
        let own = "update-00000020.safetensors";
        assert_eq!(default_name(own).unwrap(), own);
        assert!(default_name("../best").is_err());
    }
}
