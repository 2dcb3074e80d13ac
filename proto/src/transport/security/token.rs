//! The join token: a secret that all processes of one cluster share.
//!
//! With TLS it is a second check: a leaked certificate, or one of another cluster
//! of the same authority, does not suffice. Without TLS, on loopback, it keeps the
//! other users of the machine out.

use super::{SecurityError, read, unfit};
use subtle::ConstantTimeEq as _;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// The header that carries it, in gRPC and HTTP alike.
pub(super) const HEADER: &str = "authorization";
const SCHEME: &str = "Bearer ";
/// A shorter token could be guessed.
const CHARACTERS_MIN: usize = 16;

/// Adds the token, if there is one, to every call.
#[derive(Clone, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_ref().map_or("Bearer(none)", |_| "Bearer(…)"))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert(HEADER, token.clone());
        }
        Ok(request)
    }
}

/// The tokens of a file, one per line: the first is sent, all are accepted, so
/// that a token can be replaced while a cluster runs.
#[derive(Clone, Default)]
pub(super) struct Tokens {
    accepted: Vec<String>,
    pub(super) bearer: Bearer,
}

impl Tokens {
    /// Reads `cluster.token_file`.
    pub(super) fn read(path: &str) -> Result<Self, SecurityError> {
        let key = "cluster.token_file";
        let text = read(key, path)?;
        Self::parse(&String::from_utf8_lossy(&text)).map_err(|why| {
            let why = format!("{why}; `landmarl certs --out DIR` makes one");
            unfit(key, path, why)
        })
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let lines = text.lines().map(str::trim);
        let accepted: Vec<String> = lines
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect();
        let first = accepted.first().ok_or("is empty")?;
        if accepted.iter().any(|token| token.len() < CHARACTERS_MIN) {
            return Err("holds a token of fewer than 16 characters, which could be guessed");
        }
        if !accepted
            .iter()
            .all(|t| t.chars().all(|c| c.is_ascii_graphic()))
        {
            return Err("holds something else than letters, digits and signs of ASCII");
        }
        let mut value: MetadataValue<Ascii> = format!("{SCHEME}{first}")
            .parse()
            .map_err(|_| "cannot be sent")?;
        // Keeps it out of HTTP/2's header tables and of debug output.
        value.set_sensitive(true);
        Ok(Self {
            accepted,
            bearer: Bearer(Some(value)),
        })
    }

    pub(super) fn is_some(&self) -> bool {
        !self.accepted.is_empty()
    }

    /// Whether this `authorization` is one of ours; the duration does not reveal how
    /// much of it matches.
    pub(super) fn accept(&self, authorization: &[u8]) -> bool {
        let Some(token) = authorization.strip_prefix(SCHEME.as_bytes()) else {
            return false;
        };
        let right = self
            .accepted
            .iter()
            .fold(subtle::Choice::from(0), |right, ours| {
                right | ours.as_bytes().ct_eq(token)
            });
        right.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_sent_and_all_are_accepted() {
        let tokens = Tokens::parse("  new-token-of-20-chars\nold-token-of-20-chars\n\n").unwrap();
        let sent = tokens.bearer.clone().call(Request::new(())).unwrap();
        let sent = sent.metadata().get(HEADER).unwrap();
        assert_eq!(sent.to_str().unwrap(), "Bearer new-token-of-20-chars");
        assert!(tokens.accept(sent.as_bytes()));
        assert!(tokens.accept(b"Bearer old-token-of-20-chars"));
        for wrong in [
            "Bearer new-token-of-20-charS",
            "Bearer new-token-of-20-char",
            "Bearer new-token-of-20-chars-and-more",
            "Bearer ",
            "new-token-of-20-chars",
            "bearer new-token-of-20-chars",
            "",
        ] {
            assert!(!tokens.accept(wrong.as_bytes()), "{wrong}");
        }
        let shown = format!("{:?} {sent:?}", tokens.bearer);
        assert!(!shown.contains("token-of"), "{shown}");
        assert!(!Tokens::default().is_some() && tokens.is_some());
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for (text, why) in [
            ("\n \n", "is empty"),
            ("short\n", "fewer than 16"),
            ("sixteen letters and spaces\n", "something else"),
            ("sechzehn-zeichen-äöü\n", "something else"),
        ] {
            let refused = Tokens::parse(text).err().unwrap();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
