//! The sub-tenant's token, for those who would rather ask than read a file: `GET /sublet/v1/token`.

use std::{fs, io::Read};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
};

use crate::reply::{Answer, answer};

/// Where it is asked for.
pub(crate) const PATH: &str = "/sublet/v1/token";
/// More than any token has.
const READ_MAX_BYTES: u64 = 64 * 1024;

/// The answer. The file is read anew each time: it is replaced while the worker lives.
pub(crate) fn answer_to(method: &Method, file: Option<&str>) -> Answer {
    if method != Method::GET {
        let mut refused = answer(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "a token is asked for by GET");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return refused;
    }
    let Some(file) = file else {
        let message = "this function is given no token: its configuration has no table `token`";
        return answer(StatusCode::NOT_FOUND, "NoToken", message);
    };
    let read = || {
        let mut token = Vec::new();
        fs::File::open(file)?.take(READ_MAX_BYTES).read_to_end(&mut token)?;
        Ok::<_, std::io::Error>(token)
    };
    match read() {
        Ok(token) => {
            let mut answer = Response::new(Full::new(Bytes::from(token)));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            answer
        }
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, "NoToken", &format!("read {file}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_read_and_only_by_get() {
        let file = std::env::temp_dir().join(format!("sublet-token-{}", std::process::id()));
        fs::write(&file, "the token").unwrap();
        let path = file.to_str().unwrap();
        let told = answer_to(&Method::GET, Some(path));
        assert_eq!(
            (told.status(), &told.headers()[CACHE_CONTROL]),
            (StatusCode::OK, &HeaderValue::from_static("no-store"))
        );
        let refused = answer_to(&Method::POST, Some(path));
        assert_eq!(
            (refused.status(), &refused.headers()[ALLOW]),
            (StatusCode::METHOD_NOT_ALLOWED, &HeaderValue::from_static("GET"))
        );
        fs::remove_file(&file).unwrap();
        assert_eq!(answer_to(&Method::GET, Some(path)).status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer_to(&Method::GET, None).status(), StatusCode::NOT_FOUND);
    }
}
