//! The gRPC contract between gateways and workers, and the gRPC side of the one table of errors.
//!
//! The contract itself is `proto/caravan/v1/worker.proto`.

mod status;

pub use status::{from_status, to_status};

/// The generated code.
pub mod v1 {
    #![allow(
        clippy::all,
        clippy::allow_attributes_without_reason,
        clippy::too_many_lines,
        reason = "generated"
    )]
    tonic::include_proto!("caravan.v1");
}

/// How large one gRPC message may be: a conversation with images fits, a lost process does not eat the memory.
pub const MAX_MESSAGE_BYTES: usize = 96 << 20;
