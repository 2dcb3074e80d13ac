//! The numeric tests again, with fewer vector instructions than the CPU has.
//!
//! Vector width decides the order of sums and with it how they are rounded. A
//! comparison that holds on one CPU only fails here.

use anyhow::{Result, ensure};

use crate::command;
use crate::workspace::Workspace;

/// Tests that compare floats of libtorch's kernels or our own.
///
/// Of the whole workspace, whose features are built already; the names choose those of `model`.
const TESTS: [&str; 2] = [
    "--workspace --test it numbers::",
    "--workspace --lib kernels::",
];

/// Limits for libtorch, for oneDNN and for MKL; all are read when libtorch starts.
const BASELINE: [(&str, &str); 3] = [
    ("ATEN_CPU_CAPABILITY", "default"),
    ("ONEDNN_MAX_CPU_ISA", "SSE41"),
    ("MKL_CBWR", "COMPATIBLE"),
];
const AVX2: [(&str, &str); 3] = [
    ("ATEN_CPU_CAPABILITY", "avx2"),
    ("ONEDNN_MAX_CPU_ISA", "AVX2"),
    ("MKL_CBWR", "AVX2"),
];

/// Runs the tests without vectors, and with AVX2 where the CPU has more.
pub fn run(workspace: &Workspace) -> Result<()> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let wider = cpuinfo.contains(" avx512f ");
    for limits in [Some(BASELINE), wider.then_some(AVX2)]
        .into_iter()
        .flatten()
    {
        let shown = limits.map(|(name, value)| format!("{name}={value}"));
        println!("with {}:", shown.join(" "));
        for tests in TESTS {
            let mut test = workspace.cargo(&format!("test --locked --quiet {tests}"));
            let printed = command::read(test.envs(limits))?;
            print!("{printed}");
            let ran = |line: &str| {
                let passed = line.strip_prefix("test result: ok. ");
                passed.is_some_and(|passed| !passed.starts_with("0 passed"))
            };
            ensure!(printed.lines().any(ran), "`{tests}` matches no test");
        }
    }
    Ok(())
}
