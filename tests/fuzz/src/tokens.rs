//! Tokens as programs print them, and the keys they are signed with.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sublet_pool::SubTenant;
use sublet_proto::link::token::{TOKEN_MAX_BYTES, Token};
use sublet_supervisor::{fuzz::signs, token::Whose};

use crate::target;

#[test]
fn bytes_are_a_token_or_refused() {
    target!(TOKEN_MAX_BYTES + 8).for_each(|input: &[u8]| {
        let text = std::str::from_utf8(input).ok().map(|text| text.trim_end_matches(['\n', '\r']));
        let is_token = text.is_some_and(|text| {
            let is_foreign = |c: char| c.is_control() && !"\t\n\r".contains(c);
            !text.is_empty() && text.len() <= TOKEN_MAX_BYTES && !text.contains(is_foreign)
        });
        match Token::try_from(input.to_vec()) {
            Ok(token) => assert_eq!((is_token, Some(token.as_bytes())), (true, text.map(str::as_bytes))),
            Err(_) => assert!(!is_token),
        }
    });
}

/// An Ed25519 key of 32 equal bytes in PKCS#8: nobody's.
fn pem(change: &[(u8, u8)]) -> Vec<u8> {
    let mut key = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    key.extend([7; 32]);
    for (at, byte) in change {
        let at = usize::from(*at) % key.len();
        key[at] = *byte;
    }
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64_STANDARD.encode(key)).into_bytes()
}

fn whose() -> Whose {
    Whose { tenant: "acme".into(), function: "f".into(), sub_tenant: SubTenant::try_from("s1").unwrap() }
}

#[test]
fn key_signs_or_is_refused() {
    assert!(signs(&pem(&[]), &whose()).is_ok_and(|signs| signs), "the harness has one that signs");
    target!(4096).for_each(|input: &[u8]| {
        assert!(signs(input, &whose()).is_ok());
    });
}

#[test]
fn key_with_changed_bytes_signs_or_is_refused() {
    target!(16).for_each(|input: &[u8]| {
        let (changes, _) = input.as_chunks::<2>();
        let changes: Vec<(u8, u8)> = changes.iter().map(|[at, byte]| (*at, *byte)).collect();
        assert!(signs(&pem(&changes), &whose()).is_ok());
    });
}
