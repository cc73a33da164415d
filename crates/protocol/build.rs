//! Compiles the contract. Needs `protoc` with the well-known types; `make tools` finds or installs it.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "../../proto/caravan/v1/worker.proto";
    println!("cargo:rerun-if-changed={proto}");
    tonic_prost_build::configure().compile_protos(&[proto], &["../../proto"])?;
    Ok(())
}
