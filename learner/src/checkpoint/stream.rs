//! Sends a checkpoint in chunks, starting at an offset.

use std::io::{self, Read as _, Seek as _, SeekFrom};

use common::run::telemetry::in_current_span;
use proto::messages::checkpoints::PullCheckpoint;
use proto::messages::chunks::{CHUNK_BYTES_MAX, Chunk, Whole};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tonic::Status;

use crate::actors::broadcast::STALLED;
use crate::checkpoint::files::{CheckpointFiles, FilesError, Opened};

/// Opens the requested file and returns the offset to start at: the length of the
/// receiver's partial file if that file still exists, else 0.
///
/// # Errors
/// When there is no such file.
pub fn open(
    files: &CheckpointFiles,
    request: &PullCheckpoint,
) -> Result<(Opened, u64), FilesError> {
    let part = request.part.filter(|part| part.bytes > 0);
    if let Some(part) = part
        && let Some(opened) = files.open_same(&part.sha256)
        && part.bytes <= opened.info.bytes
    {
        return Ok((opened, part.bytes));
    }
    Ok((files.open(&request.name)?, 0))
}

/// Sends the chunks from `offset` on. A receiver that already has all bytes gets one empty chunk;
/// one that takes no chunk for [`STALLED`] loses its stream. No thread waits for it meanwhile.
pub async fn send(opened: Opened, offset: u64, out: mpsc::Sender<Result<Chunk, Status>>) {
    let name = opened.info.name.clone();
    let mut chunks = Chunks::new(opened, offset);
    loop {
        let read = spawn_blocking(in_current_span(move || {
            let chunk = chunks.next();
            (chunks, chunk)
        }));
        // A panic has been logged.
        let Ok((rest, chunk)) = read.await else {
            return;
        };
        chunks = rest;
        let Some(chunk) = chunk else { return };
        let chunk = chunk.map_err(|error| {
            let text = format!("cannot read checkpoint {name}: {error}");
            tracing::warn!(text);
            Status::data_loss(text)
        });
        if let Err(ended) = out.send_timeout(chunk, STALLED).await {
            tracing::debug!(name, %ended, "a download ends early");
            return;
        }
    }
}

/// The chunks of a file from an offset on.
struct Chunks {
    opened: Opened,
    offset: u64,
    /// Whether the last one was read, or failed.
    done: bool,
}

impl Chunks {
    fn new(opened: Opened, offset: u64) -> Self {
        let done = false;
        Self {
            opened,
            offset,
            done,
        }
    }

    fn read(&mut self) -> io::Result<Chunk> {
        let Opened { info, file } = &mut self.opened;
        let mut data = Vec::new();
        file.seek(SeekFrom::Start(self.offset))?;
        file.by_ref()
            .take(CHUNK_BYTES_MAX as u64)
            .read_to_end(&mut data)?;
        let (offset, read) = (self.offset, data.len() as u64);
        if read == 0 && offset < info.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += read;
        self.done = self.offset >= info.bytes;
        let whole = Whole {
            bytes: info.bytes,
            sha256: info.sha256,
            weights: None,
        };
        let data = data.into();
        Ok(Chunk {
            whole,
            offset,
            data,
        })
    }
}

impl Iterator for Chunks {
    type Item = io::Result<Chunk>;

    fn next(&mut self) -> Option<io::Result<Chunk>> {
        if self.done {
            return None;
        }
        let chunk = self.read();
        self.done |= chunk.is_err();
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::messages::checkpoints::Part;

    #[test]
    fn chunks_cover_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..CHUNK_BYTES_MAX * 2 + 5)
            .map(|i| (i % 251) as u8)
            .collect();
        std::fs::write(dir.path().join("best.safetensors"), &bytes).unwrap();
        let files = CheckpointFiles::new(dir.path());
        let sha256 = files.open("best").unwrap().info.sha256;
        let part = |bytes, sha256| Some(Part { bytes, sha256 });
        let whole = bytes.len() as u64;
        for (part, expected) in [
            (None, 0),
            (part(7, sha256), 7),
            (part(CHUNK_BYTES_MAX as u64, sha256), CHUNK_BYTES_MAX as u64),
            (part(whole, sha256), whole),
            // Another file, or an offset beyond the end: from the start.
            (part(7, [1; 32]), 0),
            (part(whole + 1, sha256), 0),
        ] {
            let name = "best".to_owned();
            let (opened, offset) = open(&files, &PullCheckpoint { name, part }).unwrap();
            assert_eq!(offset, expected);
            let (mut got, mut count) = (bytes[..usize::try_from(offset).unwrap()].to_vec(), 0);
            for chunk in Chunks::new(opened, offset) {
                let chunk = chunk.unwrap();
                assert_eq!(chunk.offset, got.len() as u64);
                got.extend_from_slice(&chunk.data);
                count += 1;
            }
            assert!(got == bytes && count >= 1, "{part:?}");
        }
    }
}
