//! `livekit.descriptors` is the compiled form of the .proto files in the `livekit-protocol` crate.
//! `PARLOR_WRITE_DESCRIPTORS=1 cargo test -p parlor-gateway --test descriptors` writes it anew.
#![allow(clippy::unwrap_used, missing_docs)]

use prost::Message;
use std::{path::PathBuf, process::Command};

fn protobufs() -> PathBuf {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "livekit-protocol").unwrap();
    let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
    manifest.parent().unwrap().join("protocol/protobufs")
}

#[test]
fn the_committed_descriptors_are_those_of_the_protocol_crate() {
    let include = protobufs();
    let mut compiler = protox::Compiler::new([&include]).unwrap();
    compiler.include_imports(true).include_source_info(false);
    for service in ["room", "agent_dispatch", "ingress", "sip"] {
        compiler.open_file(include.join(format!("livekit_{service}.proto"))).unwrap();
    }
    let compiled = compiler.file_descriptor_set().encode_to_vec();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("livekit.descriptors");
    if std::env::var_os("PARLOR_WRITE_DESCRIPTORS").is_some() {
        std::fs::write(&path, &compiled).unwrap();
    }
    assert!(std::fs::read(&path).unwrap() == compiled, "run with PARLOR_WRITE_DESCRIPTORS=1");
}
