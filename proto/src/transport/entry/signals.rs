//! Signals that stop a process in order.

use std::sync::OnceLock;

use super::Exit;

/// The signal that stopped this process.
static STOPPED_BY: OnceLock<&'static str> = OnceLock::new();

/// The name of the signal that asked this process to stop, if one did.
#[must_use]
pub fn stopped_by() -> Option<&'static str> {
    STOPPED_BY.get().copied()
}

/// Completes on Ctrl-C, SIGTERM, and what announces an end otherwise: SIGHUP (the terminal is
/// closed), SIGUSR1 and SIGUSR2 (a batch system will end the job soon), SIGXCPU (the limit of
/// processor time). A second Ctrl-C ends the process at once with [`Exit::Interrupted`]; other
/// signals do not, because batch systems and shells send several by themselves.
///
/// Signals are caught from this call on, not from the first poll, so that one that arrives
/// while a service starts also stops it. What the parent process had ignored, as `nohup` does
/// with SIGHUP, stays ignored, except for Ctrl-C and SIGTERM.
pub fn shutdown_signal() -> impl Future<Output = ()> + Send {
    let signals = caught::Signals::new();
    async move {
        let mut signals = match signals {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(%error, "cannot wait for signals; stopping");
                return;
            }
        };
        let signal = signals.next().await;
        let signal = STOPPED_BY.get_or_init(|| signal);
        tracing::info!(signal, "stopping");
        tokio::spawn(async move {
            loop {
                match signals.next().await {
                    caught::CTRL_C => break,
                    signal => tracing::info!(signal, "already stopping"),
                }
            }
            #[expect(clippy::exit, reason = "nothing is left to be done in order")]
            std::process::exit(i32::from(Exit::Interrupted as u8));
        });
    }
}

#[cfg(unix)]
mod caught {
    use std::future::poll_fn;
    use std::io;
    use std::task::Poll;

    use rustix::process::Signal as Number;
    use tokio::signal::unix::{Signal, SignalKind, signal};

    type Watched = (&'static str, Number);

    /// The signal of Ctrl-C.
    pub(super) const CTRL_C: &str = "SIGINT";

    /// Handled even if the parent process ignored them: a shell does so with SIGINT for a job in
    /// the background.
    const ALWAYS: [Watched; 2] = [(CTRL_C, Number::INT), ("SIGTERM", Number::TERM)];
    const UNLESS_IGNORED: [Watched; 4] = [
        ("SIGHUP", Number::HUP),
        ("SIGUSR1", Number::USR1),
        ("SIGUSR2", Number::USR2),
        ("SIGXCPU", Number::XCPU),
    ];

    pub(super) struct Signals {
        watched: Vec<(Watched, Signal)>,
        /// Its handler makes a write beyond the limit of `ulimit -f` fail, as on a full disk;
        /// otherwise it would end the process.
        _file_size: Signal,
    }

    fn handler(number: Number) -> io::Result<Signal> {
        signal(SignalKind::from_raw(number.as_raw()))
    }

    impl Signals {
        pub(super) fn new() -> io::Result<Self> {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let others = UNLESS_IGNORED.into_iter();
            let others = others.filter(|(_, number)| !is_ignored(&status, *number));
            let watched = ALWAYS.into_iter().chain(others);
            let watched = watched.map(|watched| Ok((watched, handler(watched.1)?)));
            Ok(Self {
                watched: watched.collect::<io::Result<_>>()?,
                _file_size: handler(Number::XFSZ)?,
            })
        }

        /// The next signal's name.
        pub(super) async fn next(&mut self) -> &'static str {
            poll_fn(|context| {
                for ((name, _), signal) in &mut self.watched {
                    if signal.poll_recv(context).is_ready() {
                        return Poll::Ready(*name);
                    }
                }
                Poll::Pending
            })
            .await
        }
    }

    /// Whether this process ignores a signal, by its `/proc/self/status`; only Linux has one.
    fn is_ignored(status: &str, number: Number) -> bool {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        let bit = u32::try_from(number.as_raw() - 1).unwrap_or(u32::MAX);
        mask.and_then(|mask| mask.checked_shr(bit))
            .is_some_and(|mask| mask & 1 == 1)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn ignored_signals_are_the_bits_of_the_mask_from_1_on() {
            // Of `nohup grep SigIgn /proc/self/status`.
            let status = "Name:\tgrep\nSigIgn:\t0000000000000001\nSigCgt:\t0000000000000200\n";
            assert!(is_ignored(status, Number::HUP));
            for other in [Number::INT, Number::USR1, Number::XCPU] {
                assert!(!is_ignored(status, other), "{other:?}");
            }
            let status = "SigIgn:\t0000000000000a00\n";
            assert!(is_ignored(status, Number::USR1) && is_ignored(status, Number::USR2));
            assert!(!is_ignored("", Number::HUP) && !is_ignored("SigIgn:\tx", Number::HUP));
        }
    }
}

/// Ctrl-C.
#[cfg(not(unix))]
mod caught {
    use std::io;

    pub(super) const CTRL_C: &str = "Ctrl-C";

    pub(super) struct Signals;

    impl Signals {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        pub(super) async fn next(&mut self) -> &'static str {
            // Without a handler the process stops at once.
            let _ = tokio::signal::ctrl_c().await;
            CTRL_C
        }
    }
}
