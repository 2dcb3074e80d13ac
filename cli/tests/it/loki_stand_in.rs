//! A fake Loki with the documented API: `GET /loki/api/v1/query_range` with streams of
//! `[nanoseconds, line]` pairs, limits, directions, errors as text.
//!
//! It supports the LogQL selectors that landmarl sends, and `|= "text"`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use common::run::run_folder::unix_nanos;
use regex::Regex;
use serde_json::{Value, json};

#[derive(Default)]
struct Kept {
    /// Time, labels, line.
    lines: Vec<(u64, BTreeMap<String, String>, String)>,
    queries: Vec<String>,
    failing: bool,
    tenant: bool,
}

type Shared = Arc<Mutex<Kept>>;

/// A running fake; it stops with its runtime.
pub struct FakeLoki {
    pub address: String,
    kept: Shared,
    _runtime: tokio::runtime::Runtime,
}

impl FakeLoki {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let kept = Shared::default();
        let router = Router::new()
            .route("/loki/api/v1/query_range", get(query_range))
            .with_state(Arc::clone(&kept));
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            address,
            kept,
            _runtime: runtime,
        }
    }

    /// Stores a line with the labels that Alloy would assign.
    pub fn push(&self, line: &str) {
        let fields: Value = serde_json::from_str(line).unwrap();
        let label = |name: &str| (name.to_owned(), fields[name].as_str().unwrap().to_owned());
        let labels = ["service", "instance", "run", "level"].map(label).into();
        let nanos = unix_nanos(fields["time"].as_str().unwrap()).unwrap();
        let mut kept = self.kept.lock().unwrap();
        kept.lines.push((nanos, labels, line.to_owned()));
    }

    pub fn requests(&self) -> usize {
        self.kept.lock().unwrap().queries.len()
    }

    pub fn last_query(&self) -> String {
        self.kept.lock().unwrap().queries.last().unwrap().clone()
    }

    pub fn fail(&self, failing: bool) {
        self.kept.lock().unwrap().failing = failing;
    }

    pub fn ask_for_tenant(&self) {
        self.kept.lock().unwrap().tenant = true;
    }
}

async fn query_range(
    State(kept): State<Shared>,
    Query(asked): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let mut kept = kept.lock().unwrap();
    kept.queries.push(asked["query"].clone());
    if kept.failing {
        return (StatusCode::INTERNAL_SERVER_ERROR, "ring is empty").into_response();
    }
    if kept.tenant && !headers.contains_key("X-Scope-OrgID") {
        return (StatusCode::UNAUTHORIZED, "no org id\n").into_response();
    }
    let Some(wanted) = parse(&asked["query"]) else {
        let why = "parse error at line 1, col 21: syntax error: unexpected IDENTIFIER";
        return (StatusCode::BAD_REQUEST, why).into_response();
    };
    let number = |name: &str| asked[name].parse::<u64>().unwrap();
    let (start, end, limit) = (number("start"), number("end"), number("limit"));
    if limit > 5000 {
        let why = format!(
            "max entries limit per query exceeded, limit > max_entries_limit ({limit} > 5000)"
        );
        return (StatusCode::BAD_REQUEST, why).into_response();
    }
    let mut found: Vec<_> = kept
        .lines
        .iter()
        .filter(|(nanos, labels, line)| (start..end).contains(nanos) && wanted(labels, line))
        .collect();
    found.sort_by_key(|(nanos, ..)| *nanos);
    let backward = asked["direction"] == "backward";
    if backward {
        found.reverse();
    }
    found.truncate(usize::try_from(limit).unwrap());
    let mut streams: BTreeMap<&BTreeMap<String, String>, Vec<Value>> = BTreeMap::new();
    for (nanos, labels, line) in found {
        let values = streams.entry(labels).or_default();
        values.push(json!([nanos.to_string(), line]));
    }
    let result: Vec<Value> = streams
        .into_iter()
        .map(|(labels, values)| json!({"stream": labels, "values": values}))
        .collect();
    let data = json!({"resultType": "streams", "result": result, "stats": {}});
    json!({"status": "success", "data": data})
        .to_string()
        .into_response()
}

type Wanted = Box<dyn Fn(&BTreeMap<String, String>, &str) -> bool>;

/// `{label=~"regex", label="value"} |= "text"`, whole regular expressions as in Loki.
fn parse(query: &str) -> Option<Wanted> {
    let (matchers, rest) = query.strip_prefix('{')?.split_once('}')?;
    let matcher = Regex::new(r#"(\w+)(=~|=)"((?:[^"\\]|\\.)*)""#).unwrap();
    let conditions: Vec<(String, Regex)> = matcher
        .captures_iter(matchers)
        .map(|c| {
            let text = c[3].replace("\\\"", "\"").replace("\\\\", "\\");
            let text = if &c[2] == "=" {
                regex::escape(&text)
            } else {
                text
            };
            (
                c[1].to_owned(),
                Regex::new(&format!("^(?:{text})$")).unwrap(),
            )
        })
        .collect();
    let text = match rest.trim() {
        "" => String::new(),
        rest => {
            let text = rest.strip_prefix("|=")?.trim().strip_prefix('"')?;
            text.strip_suffix('"')?.to_owned()
        }
    };
    Some(Box::new(move |labels, line| {
        let holds =
            |(label, regex): &(String, Regex)| labels.get(label).is_some_and(|v| regex.is_match(v));
        conditions.iter().all(holds) && line.contains(&text)
    }))
}
