//! The Rust of `sublet/v1/*.proto` is in the repository, so that a build of sublet compiles no compiler of protocols. This
//! test makes it anew and compares.
//!
//! To write it: `SUBLET_GOLDEN=write cargo test -p sublet-proto --features grpc --test generated`.
#![cfg(feature = "grpc")]

use std::{env, error::Error, fs, path::Path};

use prost::Message as _;

/// What is generated, by its name in `src/generated`.
fn generate(out: &Path) -> Result<(), Box<dyn Error>> {
    let files = protox::compile(["sublet/v1/invoker.proto", "sublet/v1/admin.proto"], ["."])?;
    // For gRPC reflection.
    fs::write(out.join("descriptor.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").out_dir(out).compile_fds(files)?;
    Ok(())
}

#[test]
fn generated_code_is_that_of_the_protocol() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generated");
    if env::var_os("SUBLET_GOLDEN").is_some_and(|mode| mode == "write") {
        return generate(&kept).unwrap();
    }
    let made = env::temp_dir().join(format!("sublet-generated-{}", std::process::id()));
    fs::create_dir(&made).unwrap();
    let result = generate(&made);
    let read = |dir: &Path, name: &str| fs::read(dir.join(name)).unwrap_or_default();
    let differs = ["sublet.v1.rs", "descriptor.bin"]
        .map(|name| read(&made, name) != read(&kept, name) || read(&kept, name).is_empty());
    fs::remove_dir_all(&made).unwrap();
    result.unwrap();
    assert_eq!(
        differs,
        [false, false],
        "the code and the descriptors in {}; write them with SUBLET_GOLDEN=write cargo test -p sublet-proto --features grpc \
         --test generated",
        kept.display()
    );
}
