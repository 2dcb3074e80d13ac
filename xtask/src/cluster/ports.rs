//! Who listens on this machine, and on which of its addresses.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};

/// The state of a socket that listens, in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Every address on which something listens.
pub fn listening() -> Result<BTreeSet<SocketAddr>> {
    let mut all = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // A machine without IPv6 has no second table.
        if let Ok(text) = fs::read_to_string(table) {
            for line in text.lines().skip(1) {
                all.extend(listener(line).with_context(|| format!("{table}: {line}"))?);
            }
        }
    }
    Ok(all)
}

/// The local address of a line, if it listens.
fn listener(line: &str) -> Result<Option<SocketAddr>> {
    let mut words = line.split_whitespace().skip(1);
    let (Some(local), Some(_), Some(state)) = (words.next(), words.next(), words.next()) else {
        return Ok(None);
    };
    if state != LISTEN {
        return Ok(None);
    }
    let (address, port) = local.split_once(':').context("no port")?;
    let port = u16::from_str_radix(port, 16)?;
    // Words of four bytes, each as this machine orders them.
    let words: Vec<[u8; 4]> = address
        .as_bytes()
        .chunks(8)
        .map(|word| {
            let text = std::str::from_utf8(word)?;
            Ok(u32::from_str_radix(text, 16)?.to_ne_bytes())
        })
        .collect::<Result<_>>()?;
    let ip: IpAddr = match words.as_slice() {
        [word] => Ipv4Addr::from(*word).into(),
        [a, b, c, d] => {
            let mut all = [0; 16];
            for (to, from) in all.chunks_mut(4).zip([a, b, c, d]) {
                to.copy_from_slice(from);
            }
            Ipv6Addr::from(all).into()
        }
        _ => return Ok(None),
    };
    Ok(Some(SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_is_seen_where_it_listens() {
        let loopback = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = loopback.local_addr().unwrap();
        assert!(listening().unwrap().contains(&address));
    }

    #[test]
    fn only_listening_sockets_count() {
        let rest = "00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1";
        let line = format!("  0: 0100007F:1CE8 {rest}");
        assert_eq!(
            listener(&line).unwrap(),
            Some("127.0.0.1:7400".parse().unwrap())
        );
        let line = format!("  0: 00000000000000000000000000000000:1CE8 {rest}");
        assert_eq!(listener(&line).unwrap(), Some("[::]:7400".parse().unwrap()));
        let connected = "  0: 0100007F:1CE8 00000000:0000 01 0";
        assert_eq!(listener(connected).unwrap(), None);
    }
}
