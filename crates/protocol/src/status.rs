//! Error code to gRPC status and back. The code's own name travels in metadata, because several codes share one
//! gRPC status; a peer that sends none (a proxy, a broken connection) is read by its gRPC status alone.

use api::{Code, Error};
use tonic::{Code as Grpc, Status, metadata::MetadataValue};

const KEY: &str = "caravan-code";

pub fn to_status(error: Error) -> Status {
    let mut status = Status::new(grpc_code(error.code), error.message);
    status.metadata_mut().insert(KEY, MetadataValue::from_static(error.code.name()));
    status
}

pub fn from_status(status: &Status) -> Error {
    let named = status.metadata().get(KEY).and_then(|value| value.to_str().ok()).and_then(Code::from_name);
    Error::new(named.unwrap_or_else(|| code_of(status.code())), status.message())
}

fn grpc_code(code: Code) -> Grpc {
    match code {
        Code::Invalid => Grpc::InvalidArgument,
        Code::Unauthorized => Grpc::Unauthenticated,
        Code::Forbidden => Grpc::PermissionDenied,
        Code::NotFound => Grpc::NotFound,
        Code::NotLoaded => Grpc::FailedPrecondition,
        Code::MethodNotAllowed => Grpc::Unimplemented,
        Code::TooLarge => Grpc::OutOfRange,
        Code::Canceled => Grpc::Cancelled,
        Code::Busy | Code::NoPermit | Code::QueueFull | Code::OutOfMemory => Grpc::ResourceExhausted,
        Code::Unavailable => Grpc::Unavailable,
        Code::TooSlow | Code::Timeout => Grpc::DeadlineExceeded,
        // Workers speak to no registry.
        Code::Remote | Code::Template | Code::Internal => Grpc::Internal,
    }
}

fn code_of(code: Grpc) -> Code {
    match code {
        Grpc::InvalidArgument | Grpc::OutOfRange => Code::Invalid,
        Grpc::Unauthenticated => Code::Unauthorized,
        Grpc::PermissionDenied => Code::Forbidden,
        Grpc::NotFound => Code::NotFound,
        Grpc::FailedPrecondition => Code::NotLoaded,
        Grpc::Unimplemented => Code::MethodNotAllowed,
        Grpc::ResourceExhausted => Code::Busy,
        Grpc::DeadlineExceeded => Code::Timeout,
        // Ours are named, so this one was made by the transport: the connection broke or the process died.
        _ => Code::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for code in Code::ALL {
            let error = Error::new(code, "why");
            assert_eq!(from_status(&to_status(error.clone())), error);
        }
    }

    #[test]
    fn a_status_without_a_name_is_read_by_its_grpc_code() {
        assert_eq!(from_status(&Status::unavailable("gone")).code, Code::Unavailable);
        assert_eq!(from_status(&Status::unknown("h2 reset")).code, Code::Unavailable);
    }
}
