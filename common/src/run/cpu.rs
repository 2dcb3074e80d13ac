//! The vector instructions that this CPU has, and those that are used.
//!
//! The vector width determines the order of sums, so f32 results differ between CPUs
//! by rounding.

use pulp::Arch;

/// The vector extensions that determine the speed of networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extensions {
    /// AVX2 with FMA.
    pub avx2: bool,
    /// AVX-512 with its byte, doubleword and short vector instructions.
    pub avx512: bool,
    /// bfloat16 products in AVX-512.
    pub avx512_bf16: bool,
    /// bfloat16 products of tiles.
    pub amx_bf16: bool,
}

impl Extensions {
    /// Those of this CPU; none where there is no `/proc/cpuinfo`.
    #[must_use]
    pub fn detect() -> Self {
        Self::from_cpuinfo(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
    }

    /// Those of the first processor in a text in the format of `/proc/cpuinfo`.
    fn from_cpuinfo(text: &str) -> Self {
        let line = text.lines().find(|line| line.starts_with("flags"));
        let flags: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
        let has = |wanted: &[&str]| wanted.iter().all(|flag| flags.contains(flag));
        Self {
            avx2: has(&["avx2", "fma"]),
            avx512: has(&["avx512f", "avx512vl", "avx512bw", "avx512dq", "fma"]),
            avx512_bf16: has(&["avx512_bf16"]),
            amx_bf16: has(&["amx_tile", "amx_bf16"]),
        }
    }

    /// Whether bfloat16 products have dedicated instructions.
    #[must_use]
    pub fn bf16(&self) -> bool {
        self.avx512_bf16 || self.amx_bf16
    }

    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        [
            (self.avx2, "AVX2"),
            (self.avx512, "AVX-512"),
            (self.avx512_bf16, "AVX512-BF16"),
            (self.amx_bf16, "AMX"),
        ]
        .into_iter()
        .filter_map(|(present, name)| present.then_some(name))
        .collect()
    }
}

/// The instruction set that the kernels of this workspace use on this CPU.
#[must_use]
pub fn kernels() -> &'static str {
    name(Arch::new())
}

fn name(level: Arch) -> &'static str {
    match level {
        Arch::Scalar => "no vectors",
        #[cfg(target_arch = "x86_64")]
        Arch::V3(_) => "AVX2",
        #[cfg(target_arch = "x86_64")]
        Arch::V4(_) => "AVX-512",
        _ => "vectors",
    }
}

/// Every instruction set that kernels can be dispatched to on this CPU,
/// for tests that compare them.
#[must_use]
pub fn levels() -> Vec<Arch> {
    #[cfg(target_arch = "x86_64")]
    let vectors = [
        pulp::x86::V3::try_new().map(Arch::V3),
        pulp::x86::V4::try_new().map(Arch::V4),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let vectors = [Some(Arch::new())];
    std::iter::once(Arch::Scalar)
        .chain(vectors.into_iter().flatten())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_read_from_the_first_processor() {
        let text = "processor\t: 0\nflags\t\t: fpu sse2 fma avx2 avx512f avx512dq avx512bw \
                    avx512vl avx512_bf16\n\nprocessor\t: 1\nflags\t\t: fpu amx_tile amx_bf16\n";
        let found = Extensions::from_cpuinfo(text);
        assert_eq!(found.names(), ["AVX2", "AVX-512", "AVX512-BF16"]);
        assert!(found.bf16());
        // A prefix of another flag does not count, nor AVX2 without FMA.
        let text = "flags\t\t: fpu avx2 avx512f avx512_vp2intersect amx_tile";
        assert_eq!(Extensions::from_cpuinfo(text), Extensions::default());
        assert_eq!(Extensions::from_cpuinfo(""), Extensions::default());
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_kernels_use_the_highest_level() {
        let names: Vec<_> = levels().into_iter().map(name).collect();
        assert_eq!(names.last(), Some(&kernels()));
        assert_eq!(names[0], "no vectors");
    }
}
