//! The numeric tests again, with fewer vector instructions than the CPU has.
//!
//! Vector width decides the order of sums and with it how they are rounded. A
//! comparison that holds on one CPU only fails here.

use anyhow::{Result, ensure};

use crate::workspace::Workspace;
use crate::{command, libtorch};

/// Tests that compare floats of libtorch's kernels or our own.
///
/// Of the whole workspace, whose features are built already; the names choose those of `model`.
const TESTS: [&str; 2] = ["--test it numbers::", "--lib kernels::"];

/// Limits for libtorch, for oneDNN and for MKL; all are read when libtorch starts.
const BASELINE: &str = "ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE";
const AVX2: &str = "ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=AVX2";

/// Runs the tests without vectors, and with AVX2 where the CPU has more.
pub fn run(workspace: &Workspace) -> Result<()> {
    libtorch::ensure(workspace)?;
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let wider = cpuinfo.contains(" avx512f ");
    let limits = [Some(BASELINE), wider.then_some(AVX2)];
    for limits in limits.into_iter().flatten() {
        println!("with {limits}:");
        for tests in TESTS {
            let mut test = workspace.cargo(&format!("test --locked --quiet --workspace {tests}"));
            test.envs(limits.split(' ').filter_map(|limit| limit.split_once('=')));
            let printed = command::read(&mut test)?;
            print!("{printed}");
            let passed =
                |line: &str| line.starts_with("test result: ok. ") && !line.contains(" 0 passed");
            ensure!(printed.lines().any(passed), "`{tests}` matches no test");
        }
    }
    Ok(())
}
