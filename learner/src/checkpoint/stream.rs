//! A checkpoint on its way to whoever pulls it, in pieces, from an offset on.

use std::io::{self, Read as _, Seek as _, SeekFrom};

use proto::messages::checkpoints::{CheckpointChunk, PIECE_BYTES_MAX, PullCheckpoint};
use tokio::sync::mpsc;
use tonic::Status;

use crate::checkpoint::files::{CheckpointFiles, FilesError, Opened};

/// The file that was asked for, and where to begin: behind the part that is
/// there already if that part's file still is, else at the beginning.
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

/// Sends the pieces from `offset` on; blocks while the receiver is slower. One
/// piece without bytes tells a receiver that has everything what it has.
pub fn send(opened: Opened, offset: u64, out: &mpsc::Sender<Result<CheckpointChunk, Status>>) {
    let name = opened.info.name.clone();
    if let Err(error) = pieces(opened, offset, |chunk| out.blocking_send(Ok(chunk)).is_ok()) {
        let text = format!("cannot read checkpoint {name}: {error}");
        tracing::warn!(text);
        let _ = out.blocking_send(Err(Status::data_loss(text)));
    }
}

fn pieces(
    opened: Opened,
    mut offset: u64,
    mut send: impl FnMut(CheckpointChunk) -> bool,
) -> io::Result<()> {
    let Opened { info, mut file } = opened;
    file.seek(SeekFrom::Start(offset))?;
    loop {
        let mut data = Vec::new();
        file.by_ref()
            .take(PIECE_BYTES_MAX as u64)
            .read_to_end(&mut data)?;
        let read = data.len() as u64;
        if read == 0 && offset < info.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let chunk = CheckpointChunk {
            name: info.name.clone(),
            total_bytes: info.bytes,
            sha256: info.sha256,
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
    fn pieces_cover_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..PIECE_BYTES_MAX * 2 + 5)
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
            (part(PIECE_BYTES_MAX as u64, sha256), PIECE_BYTES_MAX as u64),
            (part(whole, sha256), whole),
            // Another file, or more than there is: from the beginning.
            (part(7, [1; 32]), 0),
            (part(whole + 1, sha256), 0),
        ] {
            let name = "best".to_owned();
            let (opened, offset) = open(&files, &PullCheckpoint { name, part }).unwrap();
            assert_eq!(offset, expected);
            let (mut got, mut chunks) = (bytes[..usize::try_from(offset).unwrap()].to_vec(), 0);
            pieces(opened, offset, |chunk| {
                assert_eq!(chunk.offset, got.len() as u64);
                got.extend_from_slice(&chunk.data);
                chunks += 1;
                true
            })
            .unwrap();
            assert!(got == bytes && chunks >= 1, "{part:?}");
        }
    }
}
