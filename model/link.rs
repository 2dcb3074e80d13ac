// Included by the build script of every package whose binaries or tests link
// libtorch: cargo does not pass on a dependency's link arguments, so each
// package names the library and its run-time search paths.
//
// `--no-as-needed` keeps libtorch although no symbol of it is referenced
// directly (torch-sys is a static archive in between). Two run paths: beside
// the installed binary (`../lib`), and where this build found it.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../model/link.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Ok(found) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        let lib = std::fs::canonicalize(&found).unwrap_or_else(|_| found.into());
        println!("cargo:rustc-link-arg=-Wl,--disable-new-dtags");
        println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
    println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
    println!("cargo:rustc-link-arg=-ltorch");
}
