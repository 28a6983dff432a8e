//! What a runtime is answered, in the words of the published API.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::Serialize;

use crate::machine::Refusal;

/// Whole, and small.
pub type Answer = Response<Full<Bytes>>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Said<'a> {
    error_message: &'a str,
    error_type: &'a str,
}

/// An error as runtimes write theirs.
pub fn said(error_type: &str, error_message: &str) -> Bytes {
    serde_json::to_vec(&Said { error_message, error_type }).unwrap_or_default().into()
}

fn json(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// An error.
pub fn answer(status: StatusCode, kind: &str, message: &str) -> Answer {
    json(status, said(kind, message))
}

/// What was posted is taken.
pub fn accepted() -> Answer {
    json(StatusCode::ACCEPTED, Bytes::from_static(b"{\"status\":\"OK\"}\n"))
}

/// There is no such thing to ask for.
pub fn unknown(path: &str) -> Answer {
    answer(StatusCode::NOT_FOUND, "NotFound", &format!("the Runtime API has no {path}"))
}

/// Why a request is not taken.
pub fn refused(refusal: Refusal) -> Answer {
    let (status, kind, message) = match refusal {
        Refusal::InvalidRequestId => (StatusCode::BAD_REQUEST, "InvalidRequestID", "not the id of the current call"),
        Refusal::InvalidStateTransition => (StatusCode::FORBIDDEN, "InvalidStateTransition", "not now"),
        Refusal::InvokeTimeout => (StatusCode::GONE, "InvokeTimeout", "the call this answers is over"),
    };
    answer(status, kind, message)
}
