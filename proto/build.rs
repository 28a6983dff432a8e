//! Compiles `sublet/v1/*.proto` with protox, so that no protoc is needed; only when the `grpc` feature asks for it.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=sublet");
    #[cfg(feature = "grpc")]
    grpc()?;
    Ok(())
}

#[cfg(feature = "grpc")]
fn grpc() -> Result<(), Box<dyn Error>> {
    use prost::Message as _;
    use std::{env, fs, path::PathBuf};

    let files = protox::compile(["sublet/v1/invoker.proto", "sublet/v1/admin.proto"], ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Kept for gRPC reflection.
    fs::write(out.join("descriptor.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    Ok(())
}
