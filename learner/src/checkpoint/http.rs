//! Checkpoints over HTTP: `GET /checkpoints` lists them as JSON, `GET
//! /checkpoints/NAME` returns one, with range support and a strong ETag, the
//! content's SHA-256.
//!
//! This module resolves names and digests; `tower_http` serves bytes and ranges from
//! the opened file, not from its name, so that a download always ends with the file it
//! started with.

use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE, RETRY_AFTER,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use common::imaging::manifest::hex;
use tokio_stream::StreamExt as _;
use tower::ServiceExt as _;
use tower_http::services::ServeFile;

use crate::checkpoint::files::{CheckpointFiles, FilesError, Opened};

/// Seconds after which a client that was refused may try again.
const RETRY_S: &str = "20";

type Files = Arc<CheckpointFiles>;

/// The routes under `/checkpoints`; `proto::transport::http` controls access.
pub fn router(files: Files) -> Router {
    Router::new()
        .route("/checkpoints", get(list))
        .route("/checkpoints/{name}", get(file))
        .with_state(files)
}

fn failure(what: &'static str) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, what).into_response()
}

async fn list(State(files): State<Files>) -> Response {
    let Ok(list) = tokio::task::spawn_blocking(move || files.list()).await else {
        return failure("the list of checkpoints failed; see the learner's log\n");
    };
    let entries = list.iter().map(|file| {
        serde_json::json!({
            "name": file.name, "bytes": file.bytes, "sha256": hex(&file.sha256),
            "updates": file.updates, "modified_s": file.modified_s,
            "path": format!("/checkpoints/{}", file.name),
        })
    });
    let text = serde_json::Value::from_iter(entries).to_string() + "\n";
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

async fn file(State(files): State<Files>, Path(name): Path<String>, request: Request) -> Response {
    let place = match files.download() {
        Ok(place) => place,
        Err(busy) => {
            let wait = [(RETRY_AFTER, RETRY_S)];
            let why = format!("{busy}\n");
            return (StatusCode::SERVICE_UNAVAILABLE, wait, why).into_response();
        }
    };
    let opened = tokio::task::spawn_blocking(move || files.open(&name)).await;
    match opened {
        Ok(Ok(opened)) => send(opened, request).await.map(|body| {
            // The place is free once the body is sent, or dropped.
            let body = body.into_data_stream().map(move |bytes| {
                let _ = &place;
                bytes
            });
            Body::from_stream(body)
        }),
        Ok(Err(error @ FilesError::NotFound { .. })) => {
            (StatusCode::NOT_FOUND, format!("{error}\n")).into_response()
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "a download failed");
            failure("the checkpoint cannot be read; see the learner's log\n")
        }
        Err(_) => failure("the checkpoint cannot be read; see the learner's log\n"),
    }
}

async fn send(opened: Opened, mut request: Request) -> Response {
    let etag = format!("\"{}\"", hex(&opened.info.sha256));
    if names(request.headers(), &IF_NONE_MATCH, &etag) {
        return headed(StatusCode::NOT_MODIFIED.into_response(), &opened, &etag);
    }
    let headers = request.headers_mut();
    if headers.contains_key(IF_RANGE) && !names(headers, &IF_RANGE, &etag) {
        // The client's part is of other contents: send the whole file.
        headers.remove(RANGE);
    }
    // The digest decides; modification times can repeat.
    for decided in [
        IF_NONE_MATCH,
        IF_RANGE,
        IF_MODIFIED_SINCE,
        IF_UNMODIFIED_SINCE,
    ] {
        headers.remove(decided);
    }
    let path = format!("/proc/self/fd/{}", opened.file.as_raw_fd());
    let sent = ServeFile::new(path).oneshot(request).await;
    let response = match sent {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    };
    headed(response, &opened, &etag)
}

/// Whether a conditional header matches this strong ETag (or any, `*`).
fn names(headers: &HeaderMap, header: &HeaderName, etag: &str) -> bool {
    let values = headers.get_all(header).iter();
    let mut tags = values
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','));
    tags.any(|tag| matches!(tag.trim(), "*") || tag.trim() == etag)
}

fn headed(mut response: Response, opened: &Opened, etag: &str) -> Response {
    let headers = response.headers_mut();
    let disposition = format!("attachment; filename=\"{}\"", opened.info.name);
    for (header, value) in [
        (ETAG, etag),
        (CONTENT_DISPOSITION, &disposition),
        (CONTENT_TYPE, "application/octet-stream"),
        (ACCEPT_RANGES, "bytes"),
        (CACHE_CONTROL, "no-cache"),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(header, value);
        }
    }
    headers.remove(LAST_MODIFIED);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use sha2::{Digest as _, Sha256};
    use std::fs;

    const BYTES: &[u8] = b"0123456789";

    struct Served {
        dir: tempfile::TempDir,
        router: Router,
    }

    fn served() -> Served {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("best.safetensors"), BYTES).unwrap();
        let files = Arc::new(CheckpointFiles::new(dir.path()));
        let router = router(files);
        Served { dir, router }
    }

    impl Served {
        async fn get(&self, path: &str, headers: &[(HeaderName, &str)]) -> (Response, Vec<u8>) {
            let mut request = Request::builder().uri(path);
            for (name, value) in headers {
                request = request.header(name, *value);
            }
            let request = request.body(Body::empty()).unwrap();
            let response = self.router.clone().oneshot(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let bytes = to_bytes(body, 1 << 20).await.unwrap().to_vec();
            (Response::from_parts(parts, Body::empty()), bytes)
        }
    }

    fn tag(bytes: &[u8]) -> String {
        format!("\"{}\"", hex(&Sha256::digest(bytes)))
    }

    #[tokio::test]
    async fn ranges_and_etags_follow_http() {
        let served = served();
        let (own, other) = (tag(BYTES), tag(b"other"));
        let file = "/checkpoints/best.safetensors";
        let range = |r| (RANGE, r);
        type Case<'a> = (Vec<(HeaderName, &'a str)>, u16, &'a [u8], Option<&'a str>);
        let cases: Vec<Case<'_>> = vec![
            (vec![], 200, BYTES, None),
            (vec![range("bytes=4-6")], 206, b"456", Some("bytes 4-6/10")),
            (vec![range("bytes=7-")], 206, b"789", Some("bytes 7-9/10")),
            (vec![range("bytes=-2")], 206, b"89", Some("bytes 8-9/10")),
            (vec![range("bytes=10-")], 416, b"", Some("bytes */10")),
            (vec![(IF_NONE_MATCH, &own)], 304, b"", None),
            (vec![(IF_NONE_MATCH, &other)], 200, BYTES, None),
            (
                vec![range("bytes=7-"), (IF_RANGE, &own)],
                206,
                b"789",
                Some("bytes 7-9/10"),
            ),
            (
                vec![range("bytes=7-"), (IF_RANGE, &other)],
                200,
                BYTES,
                None,
            ),
        ];
        for (headers, status, body, content_range) in cases {
            let (response, bytes) = served.get(file, &headers).await;
            let shown = format!("{headers:?}: {response:?}");
            assert_eq!(response.status(), status, "{shown}");
            if status != 416 {
                assert_eq!(bytes, body, "{shown}");
            }
            let found = response.headers().get("content-range");
            assert_eq!(found.map(|v| v.to_str().unwrap()), content_range, "{shown}");
            assert_eq!(response.headers()[ETAG], own.as_str(), "{shown}");
        }
        // The name now has other contents: the client gets the whole file.
        let next = served.dir.path().join("next");
        fs::write(&next, b"9876543210").unwrap();
        fs::rename(next, served.dir.path().join("best.safetensors")).unwrap();
        let headers = [range("bytes=7-"), (IF_RANGE, own.as_str())];
        let (response, bytes) = served.get("/checkpoints/best", &headers).await;
        assert_eq!(
            (response.status().as_u16(), bytes.as_slice()),
            (200, &b"9876543210"[..])
        );
    }

    #[tokio::test]
    async fn paths_are_not_found_and_the_list_is_json() {
        let served = served();
        for path in [
            "/checkpoints/..%2Fbest.safetensors",
            "/checkpoints/%2Fetc%2Fpasswd",
            "/checkpoints/..",
            "/checkpoints/gone.safetensors",
            "/checkpoints/../../etc/passwd",
        ] {
            let (response, _) = served.get(path, &[]).await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        }
        let (response, bytes) = served.get("/checkpoints", &[]).await;
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        let list: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(list[0]["name"], "best.safetensors");
        assert_eq!(
            format!("\"{}\"", list[0]["sha256"].as_str().unwrap()),
            tag(BYTES)
        );
    }
}
