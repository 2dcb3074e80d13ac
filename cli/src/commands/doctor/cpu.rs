//! The check of the CPU's vector instructions.

use common::run::cpu::{self, Extensions};

use super::Check;

/// Limits libtorch's own kernels; libtorch reads it at startup.
const ATEN: &str = "ATEN_CPU_CAPABILITY";
/// Limits oneDNN, which executes libtorch's convolutions.
const ONEDNN: &str = "ONEDNN_MAX_CPU_ISA";

pub fn check() -> Check {
    let value = |name| std::env::var(name).ok();
    let (aten, onednn) = (value(ATEN), value(ONEDNN));
    let kernels = cpu::kernels();
    let has = Extensions::detect();
    let detail = detail(&has, kernels, aten.as_deref(), onednn.as_deref());
    if kernels == "no vectors" {
        let fix = "use a CPU with AVX2 and FMA: acting and training are several times faster";
        return Check::warn("CPU", detail, fix);
    }
    Check::ok("CPU", detail)
}

fn detail(has: &Extensions, kernels: &str, aten: Option<&str>, onednn: Option<&str>) -> String {
    let mut names = has.names().join(", ");
    if names.is_empty() {
        names.push_str("no AVX2");
    }
    let mut text = format!("{names}; libtorch computes with {}", libtorch(has, aten));
    if let Some(value) = aten {
        text += &format!(" ({ATEN}={value})");
    }
    if let Some(value) = onednn {
        text += &format!(", oneDNN with {value} at most ({ONEDNN})");
    }
    text + &format!(", our kernels with {kernels}")
}

/// The level that libtorch chooses: the variable's if it has a known value,
/// otherwise the CPU's.
fn libtorch(has: &Extensions, aten: Option<&str>) -> &'static str {
    match aten {
        Some("avx512") => "AVX-512",
        Some("avx2") => "AVX2",
        Some("default") => "SSE2",
        _ if has.avx512 => "AVX-512",
        _ if has.avx2 => "AVX2",
        _ => "SSE2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Verdict;

    #[test]
    fn the_detail_names_the_instructions_and_their_limits() {
        let has = Extensions {
            avx2: true,
            avx512: true,
            ..Extensions::default()
        };
        assert_eq!(
            detail(&has, "AVX-512", None, None),
            "AVX2, AVX-512; libtorch computes with AVX-512, our kernels with AVX-512"
        );
        assert_eq!(
            detail(&has, "AVX-512", Some("avx2"), Some("AVX2")),
            "AVX2, AVX-512; libtorch computes with AVX2 (ATEN_CPU_CAPABILITY=avx2), \
             oneDNN with AVX2 at most (ONEDNN_MAX_CPU_ISA), our kernels with AVX-512"
        );
        assert_eq!(
            detail(&Extensions::default(), "no vectors", Some("nonsense"), None),
            "no AVX2; libtorch computes with SSE2 (ATEN_CPU_CAPABILITY=nonsense), \
             our kernels with no vectors"
        );
    }

    #[test]
    fn only_a_cpu_without_vectors_gives_a_warning() {
        let expected = match cpu::kernels() {
            "no vectors" => Verdict::Warn,
            _ => Verdict::Ok,
        };
        assert_eq!(check().verdict, expected);
    }
}
