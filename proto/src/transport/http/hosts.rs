//! Under which names a service answers over HTTP.
//!
//! A page of the web can give its own host name the address of a service ("DNS rebinding").
//! The browser then sends the service's answers to that page, and changes of the page to the
//! service. The request still names the page's host, so requests for unknown names are refused.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use axum::http::header::{HOST, HeaderName, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri};
use common::config::Config;
use common::run::machine::host_name;

use crate::transport::security::Security;

/// Characters of a refused name that the answer and the log show.
const SHOWN: usize = 100;

/// Why a request is refused for the host that it names.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Foreign {
    #[error("the request needs exactly one header \"Host: NAME:PORT\"")]
    NoHost,
    #[error(
        "\"{0}\" is not a name of this service: call it by an IP address, by localhost, or by a name \
         in its configuration (http.hosts, cluster.learner, cluster.shards) or its certificate"
    )]
    Host(String),
    #[error("a page of \"{0}\" sent this request: pages of other hosts may not call this service")]
    Origin(String),
}

impl Foreign {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NoHost => StatusCode::BAD_REQUEST,
            Self::Host(_) | Self::Origin(_) => StatusCode::FORBIDDEN,
        }
    }
}

/// The names under which a service answers, besides IP addresses, localhost, and the names in its
/// certificate. Cheap to clone.
#[derive(Clone, Default)]
pub struct Hosts(Arc<[String]>);

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

impl Hosts {
    /// `http.hosts`, the hosts that `[cluster]` names, and the name of this machine.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let cluster = &config.cluster;
        let addresses = std::iter::once(&cluster.learner).chain(&cluster.shards);
        let called = addresses.filter_map(|address| {
            let authority: Authority = address.parse().ok()?;
            Some(authority.host().to_owned())
        });
        let all = config.http.hosts.iter().cloned().chain(called);
        let all = all.chain([host_name()]).map(|name| plain(&name));
        Self(all.filter(|name| !name.is_empty()).collect())
    }

    fn contains(&self, host: &str) -> bool {
        self.0.iter().any(|known| match known.strip_prefix('.') {
            // All names below a domain.
            Some(_) => host.len() > known.len() && host.ends_with(known.as_str()),
            None => host == known,
        })
    }

    /// Refuses a request that names another host, or that a page of another host sent.
    pub(super) fn check(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        security: &Security,
    ) -> Result<(), Foreign> {
        let host = only(headers, &HOST).ok_or(Foreign::NoHost)?;
        // Of a target such as http://name/path the name counts too.
        let target = uri.authority().map(Authority::as_str);
        for named in std::iter::once(host).chain(target) {
            if !self.is_ours(named, security) {
                return Err(Foreign::Host(shown(named)));
            }
        }
        if !headers.contains_key(ORIGIN) {
            return Ok(());
        }
        let origin = only(headers, &ORIGIN).unwrap_or_default();
        let own = origin.split_once("://").map(|(_, authority)| authority);
        if own.is_some_and(|own| own.eq_ignore_ascii_case(host)) {
            return Ok(());
        }
        Err(Foreign::Origin(shown(origin)))
    }

    fn is_ours(&self, authority: &str, security: &Security) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else {
            return false;
        };
        // Nothing but a host, and a port if there is one.
        let rest = authority.as_str().strip_prefix(authority.host());
        if rest.is_none_or(|rest| !rest.is_empty() && !rest.starts_with(':')) {
            return false;
        }
        let host = plain(authority.host());
        let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        // An address is not looked up, so no page can give its own name the meaning of one.
        address.unwrap_or(&host).parse::<IpAddr>().is_ok()
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.contains(&host)
            || security.certificate_names(&host)
    }
}

/// In lower case, without the dot of the root.
fn plain(host: &str) -> String {
    let host = host.trim();
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// The value of a header that must be there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let value = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(value)
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn hosts() -> Hosts {
        let mut config = Config::defaults().unwrap();
        config.cluster.learner = "Learner-0.lab:7400".into();
        config.cluster.shards = vec!["replay-0:7410".into(), "[fd00::1]:7410".into()];
        config.http.hosts = vec!["actor".into(), ".landmarl.svc".into()];
        Hosts::of(&config)
    }

    fn check(lines: &[(HeaderName, &str)], target: &str) -> Result<(), Foreign> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let security = Security::none();
        hosts().check(&target.parse().unwrap(), &headers, &security)
    }

    fn by(host: &str) -> Result<(), Foreign> {
        check(&[(HOST, host)], "/health")
    }

    #[test]
    fn addresses_loopback_and_configured_names_are_ours() {
        let own = host_name();
        for host in [
            "127.0.0.1:7480",
            "10.1.2.3",
            "[::1]:7480",
            "[fd00::7]",
            "localhost:7480",
            "LOCALHOST",
            "localhost.",
            "board.localhost:80",
            "learner-0.lab:7480",
            "LEARNER-0.LAB.",
            "replay-0:7480",
            "actor:7480",
            "actor-3.landmarl.svc:7480",
            &own,
        ] {
            assert_eq!(by(host), Ok(()), "{host}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for host in [
            "evil.example",
            "evil.example:7480",
            "localhost.evil.example",
            "127.0.0.1.evil.example:7480",
            "evillocalhost",
            "2130706433",
            "127.1",
            "0x7f.0.0.1",
            "evil@127.0.0.1",
            "127.0.0.1@evil.example",
            "[::1].evil.example",
            "xlandmarl.svc",
            ".landmarl.svc",
            "landmarl.svc",
            "actor.evil",
            "",
            ":7480",
            "a b",
        ] {
            let refused = by(host).expect_err(host);
            assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{host}");
            let text = refused.to_string();
            assert!(text.contains("http.hosts"), "{text}");
        }
        let long = by(&"x".repeat(5000)).unwrap_err().to_string();
        assert!(long.len() < 400, "{long}");
    }

    #[test]
    fn a_request_names_exactly_one_host_also_in_its_target() {
        let ours = (HOST, "localhost");
        let theirs = (HOST, "evil.example");
        assert_eq!(check(&[], "/health"), Err(Foreign::NoHost));
        let two = check(&[ours.clone(), theirs], "/health");
        assert_eq!(two, Err(Foreign::NoHost));
        assert_eq!(Foreign::NoHost.status(), StatusCode::BAD_REQUEST);
        let target = "http://evil.example/health";
        assert!(matches!(
            check(std::slice::from_ref(&ours), target),
            Err(Foreign::Host(_))
        ));
        assert_eq!(check(&[ours], "http://localhost:7480/health"), Ok(()));
    }

    #[test]
    fn pages_of_other_hosts_are_refused() {
        let from = |origin| check(&[(HOST, "localhost:7480"), (ORIGIN, origin)], "/log-level");
        assert_eq!(from("http://localhost:7480"), Ok(()));
        assert_eq!(from("https://LOCALHOST:7480"), Ok(()));
        for origin in [
            "http://evil.example",
            "http://evil.example:7480",
            "http://localhost:3000",
            "http://127.0.0.1:7480",
            "null",
            "",
        ] {
            let refused = from(origin).unwrap_err();
            assert_eq!(refused, Foreign::Origin(origin.into()));
            assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        }
    }
}
