//! What etcd's errors mean to us: which may be tried again, and which never will work.

use std::error::Error as StdError;

use etcd_client::{Error as EtcdError, WatchResponse};
use tonic::{Code, Status};

use crate::store::{Error, LeaseId};

pub(super) fn convert(error: EtcdError) -> Error {
    match error {
        EtcdError::GRpcStatus(status) => from_status(&status),
        // The one answer to a renewal that comes without a status.
        EtcdError::LeaseKeepAliveError(why) if why.contains("not found") => Error::LeaseGone(LeaseId(0)),
        EtcdError::InvalidArgs(why) | EtcdError::EndpointError(why) => Error::Invalid(why),
        EtcdError::InvalidUri(error) => Error::Invalid(format!("etcd endpoint: {error}")),
        EtcdError::InvalidMetadataValue(error) => Error::Invalid(format!("etcd token: {error}")),
        EtcdError::TransportError(error) => {
            Error::Unavailable(with_sources(error.to_string(), error.source()))
        }
        error => Error::Unavailable(error.to_string()),
    }
}

/// Whether no member can have seen the request: there was nobody to send it to. A connection that breaks later proves
/// nothing.
pub(super) fn was_never_sent(error: &EtcdError) -> bool {
    let mut source: Option<&(dyn StdError + 'static)> = match error {
        EtcdError::GRpcStatus(status) => status.source(),
        EtcdError::TransportError(error) => Some(error),
        _ => None,
    };
    while let Some(error) = source {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        source = error.source();
    }
    false
}

/// Why the server has ended a watch, if it has.
pub(super) fn refused_watch(response: &WatchResponse, from: i64) -> Option<Error> {
    if !response.canceled() {
        return None;
    }
    Some(match response.compact_revision() {
        0 => Error::Unavailable(format!("etcd has ended the watch: {}", response.cancel_reason())),
        oldest => Error::Compacted { from, oldest },
    })
}

fn from_status(status: &Status) -> Error {
    let why = status.message().to_owned();
    match status.code() {
        Code::NotFound if why.contains("lease not found") => Error::LeaseGone(LeaseId(0)),
        // What etcd says to a wrong password, and to none at all.
        Code::InvalidArgument
            if why.contains("authentication failed") || why.contains("user name is empty") =>
        {
            Error::Denied(why)
        }
        Code::Unauthenticated | Code::PermissionDenied => Error::Denied(why),
        Code::InvalidArgument | Code::Unimplemented => Error::Invalid(why),
        // A page of a range whose revision was compacted meanwhile: the range is taken anew.
        Code::OutOfRange => Error::Unavailable(why),
        _ => Error::Unavailable(with_sources(why, status.source())),
    }
}

/// "transport error" alone says nothing; what is below it does.
fn with_sources(mut text: String, mut source: Option<&(dyn StdError + 'static)>) -> String {
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}
