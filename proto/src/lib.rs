//! Wire types of sublet, and no logic beyond checking them.
//!
//! [`link`] is private to sublet: what supervisor, nursery, init and functions say to each other. It has no dependency on
//! gRPC, so the static shim and function authors pay nothing for it. `v1` (feature `grpc`) is the public API, package
//! `sublet.v1`, generated from `proto/sublet/v1`.
#![forbid(unsafe_code)]

pub mod level;
pub mod link;

/// The public gRPC API, package `sublet.v1`.
#[cfg(feature = "grpc")]
#[allow(missing_docs, clippy::all, rust_2018_idioms)]
pub mod v1 {
    tonic::include_proto!("sublet.v1");

    /// The encoded `FileDescriptorSet` of the package, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
}
