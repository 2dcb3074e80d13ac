//! Log lines from Loki, over its HTTP API (`/loki/api/v1/query_range`).
//!
//! The query selects by labels (service, level, run) and time; all other conditions are applied
//! here, by the same [`Filter`] as for files. Each page starts at the time of the previous
//! page's last line; repeated lines are dropped. To follow, the newest lines are polled: Loki's
//! own tail is a WebSocket, and saving a second of delay is not worth another protocol.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum as _;
use common::report::text::one_line;
use serde::Deserialize;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use super::filter::Filter;
use super::line::{Level, Line};
use crate::output::console;
use crate::output::failure::{Advice, Exit};

/// Lines per page; Loki's default limit is 5000.
const PAGE: usize = 1000;
/// The largest page that Loki returns by default.
const PAGE_MAX: usize = 5000;
/// Larger responses are rejected.
const RESPONSE_BYTES_MAX: u64 = 256 << 20;
const TIMEOUT: Duration = Duration::from_secs(30);
/// The largest delay with which a line may reach Loki, in nanoseconds.
const LATE: u64 = 10_000_000_000;
/// Above this number of remembered lines, lines too old to be repeated are dropped.
const REMEMBERED: usize = 100_000;

/// A client of Loki.
#[derive(Debug)]
pub struct Loki {
    agent: ureq::Agent,
    address: String,
    /// LogQL: the selector and the user's addition.
    query: String,
    headers: Vec<(String, String)>,
}

/// A response of `query_range`.
#[derive(Debug, Deserialize)]
struct Response {
    data: Data,
}

#[derive(Debug, Deserialize)]
struct Data {
    result: Vec<Stream>,
}

#[derive(Debug, Deserialize)]
struct Stream {
    stream: HashMap<String, String>,
    /// Time in nanoseconds, text, and sometimes a third element, which is ignored.
    values: Vec<Vec<serde_json::Value>>,
}

/// A line as stored by Loki.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Entry {
    nanos: u64,
    text: String,
}

/// The labels that Loki stores with a line.
type Labels = Arc<HashMap<String, String>>;

impl Loki {
    /// A client of Loki at `url` for lines that `filter` may match.
    pub fn new(
        url: &str,
        filter: &Filter,
        more: Option<&str>,
        headers: &[String],
    ) -> anyhow::Result<Self> {
        let headers = headers.iter().map(|header| {
            let (name, value) = header.split_once(':').ok_or_else(|| {
                let message = format!("--header \"{header}\" is not NAME: VALUE");
                Advice::new(Exit::Usage, message)
            })?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        });
        let headers = headers.collect::<Result<Vec<_>, Advice>>()?;
        if !url.starts_with("http://") && !url.starts_with("https://") {
            let message = format!("--loki \"{url}\" is not a URL, as in http://127.0.0.1:3100");
            return Err(Advice::new(Exit::Usage, message).into());
        }
        let query = selector(filter) + &more.map(|m| format!(" {m}")).unwrap_or_default();
        Ok(Self {
            agent: agent(url.starts_with("https://")),
            address: url.trim_end_matches('/').to_owned(),
            query,
            headers,
        })
    }

    /// Lines from `since` (inclusive) to `until` (exclusive), the oldest first. Stops
    /// early when `take` reports that it has enough.
    pub fn lines(
        &self,
        filter: &Filter,
        (since, until): (u64, u64),
        mut take: impl FnMut(Line) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        self.pages(false, since, until, |line| {
            if filter.matches(&line) {
                take(line)
            } else {
                Ok(true)
            }
        })
    }

    /// The last `count` of them, the oldest first.
    pub fn last(
        &self,
        filter: &Filter,
        (since, until): (u64, u64),
        count: usize,
    ) -> anyhow::Result<VecDeque<Line>> {
        let mut found = VecDeque::new();
        if count == 0 {
            return Ok(found);
        }
        self.pages(true, since, until, |line| {
            if filter.matches(&line) {
                found.push_front(line);
            }
            Ok(found.len() < count)
        })?;
        Ok(found)
    }

    /// All pages, the newest lines first if `backward`; stops as [`Loki::lines`] does.
    fn pages(
        &self,
        backward: bool,
        mut since: u64,
        mut until: u64,
        mut take: impl FnMut(Line) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let mut limit = PAGE;
        // Lines with the time at which the previous page ended.
        let mut seen: HashSet<Entry> = HashSet::new();
        while since < until {
            let (entries, labels) = self.page(backward, since, until, limit)?;
            let Some(last) = entries.last().map(|e| e.nanos) else {
                return Ok(());
            };
            let new = entries.iter().zip(labels);
            let mut new = new.filter(|(e, _)| !seen.contains(*e)).peekable();
            let repeated = new.peek().is_none();
            for (entry, labels) in new {
                if !take(line(entry, &labels))? {
                    return Ok(());
                }
            }
            if entries.len() < limit {
                return Ok(());
            }
            // More lines share one nanosecond than Loki returns at once.
            let skip = repeated && limit >= PAGE_MAX;
            seen = entries
                .into_iter()
                .filter(|e| e.nanos == last && !skip)
                .collect();
            if backward {
                until = last + u64::from(!skip);
            } else {
                since = last + u64::from(skip);
            }
            limit = if repeated && !skip { PAGE_MAX } else { PAGE };
        }
        Ok(())
    }

    /// One page, the newest lines first if `backward`, with the labels of each line.
    fn page(
        &self,
        backward: bool,
        since: u64,
        until: u64,
        limit: usize,
    ) -> anyhow::Result<(Vec<Entry>, Vec<Labels>)> {
        let mut request = self
            .agent
            .get(format!("{}/loki/api/v1/query_range", self.address))
            .query("query", &self.query)
            .query("start", since.to_string())
            .query("end", until.to_string())
            .query("limit", limit.to_string())
            .query("direction", if backward { "backward" } else { "forward" });
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let mut reply = request.call().map_err(|error| self.unreachable(&error))?;
        let status = reply.status().as_u16();
        let body = reply.body_mut().with_config().limit(RESPONSE_BYTES_MAX);
        let text = body.read_to_string();
        let text = text.map_err(|error| self.unreachable(&error))?;
        if status != 200 {
            return Err(self.refused(status, &text).into());
        }
        let response: Response = serde_json::from_str(&text)
            .with_context(|| format!("incompatible response from {}", self.address))?;
        let mut all = Vec::new();
        for Stream { stream, values } in response.data.result {
            let labels = Arc::new(stream);
            for value in values {
                if let [nanos, text, ..] = value.as_slice()
                    && let (Some(nanos), Some(text)) = (nanos.as_str(), text.as_str())
                    && let Ok(nanos) = nanos.parse()
                {
                    let text = text.to_owned();
                    all.push((Entry { nanos, text }, Arc::clone(&labels)));
                }
            }
        }
        // The sort is stable: lines with the same time keep Loki's order.
        all.sort_by(|(a, _), (b, _)| {
            let order = a.nanos.cmp(&b.nanos);
            if backward { order.reverse() } else { order }
        });
        Ok(all.into_iter().unzip())
    }

    fn unreachable(&self, error: &ureq::Error) -> Advice {
        let message = format!("Loki at {} does not respond: {error}", self.address);
        Advice::new(Exit::Unreachable, message)
            .hint("check that it runs and that the address is right")
    }

    fn refused(&self, status: u16, text: &str) -> Advice {
        let text = text.trim();
        let message = format!("Loki at {} returned {status}: {text}", self.address);
        let query = format!("the query was: {}", self.query);
        let hint = match status {
            400 => query.as_str(),
            401 | 403 => {
                "authenticate with --header, as in --header \"Authorization: Bearer TOKEN\""
            }
            429 => "Loki is overloaded: shorten the interval with --since, or retry later",
            _ => "see the log of Loki",
        };
        Advice::new(Exit::Unreachable, message).hint(hint)
    }
}

/// Recently printed lines: late lines are printed, and none is printed twice.
#[derive(Debug, Default)]
pub struct Recent {
    shown: HashSet<Entry>,
    newest: u64,
}

impl Recent {
    /// Whether this line has not been printed yet.
    pub fn is_new(&mut self, line: &Line) -> bool {
        if self.shown.len() >= REMEMBERED {
            self.next_start(0);
        }
        self.newest = self.newest.max(line.nanos);
        self.shown.insert(Entry {
            nanos: line.nanos,
            text: line.raw.clone(),
        })
    }

    /// The start of the next query; forgets older lines.
    pub fn next_start(&mut self, at_least: u64) -> u64 {
        let from = self.newest.saturating_sub(LATE).max(at_least);
        self.shown.retain(|entry| entry.nanos >= from);
        from
    }
}

/// A label selector that includes everything that `filter` matches.
fn selector(filter: &Filter) -> String {
    let escaped: Vec<String> = filter.services.iter().map(|s| regex::escape(s)).collect();
    let services = match escaped.join("|").as_str() {
        "" => ".+".to_owned(),
        prefixes => format!("({prefixes}).*"),
    };
    let mut matchers = vec![format!("service=~{}", quoted(&services))];
    if let Some(least) = filter.level.filter(|l| *l > Level::Trace) {
        let levels = Level::value_variants().iter().filter(|l| **l >= least);
        let names: Vec<String> = levels.map(|l| format!("{l:?}").to_lowercase()).collect();
        matchers.push(format!("level=~{}", quoted(&names.join("|"))));
    }
    if let Some(run) = &filter.run {
        matchers.push(format!("run={}", quoted(run)));
    }
    format!("{{{}}}", matchers.join(", "))
}

/// A LogQL string literal, which has the syntax of a Go string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Builds a line from Loki's labels if the text is not a log line of landmarl.
fn line(entry: &Entry, labels: &HashMap<String, String>) -> Line {
    let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
    if let Some(mut line) = Line::parse(&entry.text) {
        line.nanos = entry.nanos;
        return line;
    }
    let at = std::time::UNIX_EPOCH + Duration::from_nanos(entry.nanos);
    Line {
        nanos: entry.nanos,
        time: common::run::run_folder::rfc3339(at),
        level: Level::parse(&label("level")).unwrap_or(Level::Info),
        service: label("service"),
        instance: label("instance"),
        run: label("run"),
        message: entry.text.clone(),
        fields: Vec::new(),
        // Not JSON, whose strings cannot hold them: escapes control characters.
        raw: one_line(&entry.text).into_owned(),
    }
}

/// An HTTP client; with TLS, it trusts the authorities of this machine.
fn agent(tls: bool) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .user_agent(concat!("landmarl/", env!("CARGO_PKG_VERSION")));
    if !tls {
        return config.build().into();
    }
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        console::note(&format!(
            "warning: cannot read a system certificate: {error}"
        ));
    }
    let certificates = found.certs.iter().map(|c| Certificate::from_der(c));
    let trusted: Vec<Certificate<'static>> = certificates.map(|c| c.to_owned()).collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(RootCerts::new_with_certs(&trusted))
        .build();
    config.tls_config(tls).build().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selector_includes_all_lines_that_the_filter_matches() {
        assert_eq!(selector(&Filter::default()), r#"{service=~".+"}"#);
        let filter = Filter {
            services: vec!["actor".into(), "replay.\"".into()],
            instances: vec!["3".into()],
            level: Some(Level::Warn),
            run: Some("a\\b".into()),
            ..Filter::default()
        };
        assert_eq!(
            selector(&filter),
            r#"{service=~"(actor|replay\\.\").*", level=~"warn|error", run="a\\b"}"#
        );
    }

    #[test]
    fn foreign_lines_use_the_values_of_their_labels() {
        let entry = Entry {
            nanos: 1_795_443_901_000_000_000,
            text: "error: no such file".into(),
        };
        let labels = [("service", "actor"), ("level", "error")];
        let labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let line = line(&entry, &labels);
        assert_eq!(line.time, "2026-11-23T14:25:01Z");
        assert_eq!((line.level, line.service.as_str()), (Level::Error, "actor"));
    }

    #[test]
    fn addresses_and_headers_are_checked() {
        let filter = Filter::default();
        let header = vec!["nonsense".to_owned()];
        for (url, headers, words) in [
            ("127.0.0.1:3100", vec![], "is not a URL"),
            ("http://x", header, "is not NAME: VALUE"),
        ] {
            let error = Loki::new(url, &filter, None, &headers).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
