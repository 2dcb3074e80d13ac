//! Sends a checkpoint in chunks, starting at an offset.

use std::io::{self, Read as _, Seek as _, SeekFrom};

use proto::messages::checkpoints::PullCheckpoint;
use proto::messages::chunks::{CHUNK_BYTES_MAX, Chunk, Whole};
use tokio::sync::mpsc;
use tonic::Status;

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

/// Sends the chunks from `offset` on; blocks while the receiver is slower. A
/// receiver that already has all bytes gets one empty chunk.
pub fn send(opened: Opened, offset: u64, out: &mpsc::Sender<Result<Chunk, Status>>) {
    let name = opened.info.name.clone();
    if let Err(error) = chunks(opened, offset, |chunk| out.blocking_send(Ok(chunk)).is_ok()) {
        let text = format!("cannot read checkpoint {name}: {error}");
        tracing::warn!(text);
        let _ = out.blocking_send(Err(Status::data_loss(text)));
    }
}

fn chunks(opened: Opened, mut offset: u64, mut send: impl FnMut(Chunk) -> bool) -> io::Result<()> {
    let Opened { info, mut file } = opened;
    let whole = Whole {
        bytes: info.bytes,
        sha256: info.sha256,
        weights: None,
    };
    file.seek(SeekFrom::Start(offset))?;
    loop {
        let mut data = Vec::new();
        file.by_ref()
            .take(CHUNK_BYTES_MAX as u64)
            .read_to_end(&mut data)?;
        let read = data.len() as u64;
        if read == 0 && offset < info.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let chunk = Chunk {
            whole,
            offset,
            data: data.into(),
        };
        offset += read;
        if !send(chunk) || offset >= info.bytes {
            return Ok(());
        }
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
            chunks(opened, offset, |chunk| {
                assert_eq!(chunk.offset, got.len() as u64);
                got.extend_from_slice(&chunk.data);
                count += 1;
                true
            })
            .unwrap();
            assert!(got == bytes && count >= 1, "{part:?}");
        }
    }
}
