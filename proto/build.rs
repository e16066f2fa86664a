//! Generates the wire types from the `.proto` files in pure Rust; no `protoc` is needed.

use std::{env, path::PathBuf};

const FILES: [&str; 11] = [
    "riverrun/v1/common.proto",
    "riverrun/v1/produce.proto",
    "riverrun/v1/fetch.proto",
    "riverrun/v1/group.proto",
    "riverrun/v1/admin.proto",
    "riverrun/v1/push.proto",
    "riverrun/v1/subscription.proto",
    "riverrun/v1/socket.proto",
    "riverrun/state/v1/groups.proto",
    "riverrun/state/v1/metadata.proto",
    "riverrun/state/v1/subscriptions.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    if env::var_os("CARGO_FEATURE_GRPC").is_none() {
        return Ok(());
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(FILES, ["proto"])?;
    write_descriptors(&out, &descriptors)?;
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::grpc::codec::ExactCodec")
        // Its own says how many there are and nothing of them: see `grpc/secrets.rs`.
        .skip_debug([".riverrun.v1.WebhookSecrets"])
        .compile_fds(descriptors)?;
    Ok(())
}

/// Keeps the public services' descriptors for gRPC reflection.
fn write_descriptors(
    out: &std::path::Path,
    descriptors: &impl prost::Message,
) -> Result<(), std::io::Error> {
    #[expect(clippy::disallowed_methods, reason = "a build script writes its output directory")]
    std::fs::write(out.join("riverrun.bin"), descriptors.encode_to_vec())
}
