//! Tokens that are signed here: JSON Web Tokens (RFC 7519), short-lived.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use sublet_proto::link::token::Token;

use super::provider::Whose;
use crate::driver::labels::hex;

/// A private key, tried.
#[derive(Debug)]
pub struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
}

/// What a token says.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    /// The label, as callers write it.
    sub: &'a str,
    tenant: &'a str,
    function: &'a str,
    iat: u64,
    nbf: u64,
    exp: u64,
    /// Never seen twice.
    jti: &'a str,
}

/// What does not change from token to token.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// `iss`.
    pub issuer: &'a str,
    /// `aud`.
    pub audience: &'a str,
    /// `kid`.
    pub key_id: Option<&'a str>,
    /// Until `exp`.
    pub ttl: Duration,
}

impl Signer {
    /// The key in a PEM text; none when it is no private key of a kind that is taken, or is not whole.
    pub fn from_pem(pem: &[u8]) -> Option<Self> {
        type Read = fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>;
        // No RSA: no implementation in Rust is known to take the same time for every key (RUSTSEC-2023-0071).
        let kinds: [(Read, Algorithm); 2] =
            [(EncodingKey::from_ed_pem, Algorithm::EdDSA), (EncodingKey::from_ec_pem, Algorithm::ES256)];
        kinds.into_iter().find_map(|(read, algorithm)| {
            let signer = Self { key: read(pem).ok()?, algorithm };
            // The text alone does not tell a public key, or one of another curve.
            signer.sign(None, &()).ok().map(|_| signer)
        })
    }

    fn sign(&self, key_id: Option<&str>, claims: &impl Serialize) -> jsonwebtoken::errors::Result<String> {
        let header = Header { kid: key_id.map(str::to_owned), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.key)
    }

    /// A token for this sub-tenant, from now on.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub fn issue(&self, terms: &Terms<'_>, whose: &Whose) -> Result<Token, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| format!("get random bytes: {error}"))?;
        let claims = Claims {
            iss: terms.issuer,
            aud: terms.audience,
            sub: whose.sub_tenant.as_str(),
            tenant: &whose.tenant,
            function: &whose.function,
            iat: now,
            nbf: now,
            exp: now + terms.ttl.as_secs(),
            jti: &hex(&id),
        };
        let token = self.sign(terms.key_id, &claims).map_err(|error| format!("sign: {error}"))?;
        Token::try_from(token.into_bytes()).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use jsonwebtoken::{DecodingKey, TokenData, Validation, decode};
    use serde_json::Value;
    use sublet_pool::SubTenant;

    use super::*;

    type Claimed = HashMap<String, Value>;

    fn issue(pem: &str, label: &str) -> String {
        let signer = Signer::from_pem(pem.as_bytes()).expect("it is one");
        let terms = Terms { issuer: "i", audience: "a", key_id: Some("k1"), ttl: Duration::from_secs(60) };
        let whose =
            Whose { tenant: "acme".into(), function: "f".into(), sub_tenant: SubTenant::try_from(label).unwrap() };
        let token = signer.issue(&terms, &whose).unwrap();
        String::from_utf8(token.as_bytes().to_vec()).unwrap()
    }

    fn verify(
        token: &str,
        key: &DecodingKey,
        algorithm: Algorithm,
    ) -> jsonwebtoken::errors::Result<TokenData<Claimed>> {
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&["a"]);
        validation.set_issuer(&["i"]);
        validation.set_required_spec_claims(&["exp", "nbf", "sub", "aud", "iss"]);
        validation.validate_nbf = true;
        decode(token, key, &validation)
    }

    #[test]
    fn token_of_each_kind_of_key_says_whose_it_is_and_verifies() {
        let keys = [
            (
                include_str!("test-keys/ed.pem"),
                DecodingKey::from_ed_pem(include_bytes!("test-keys/ed.pub")),
                Algorithm::EdDSA,
            ),
            (
                include_str!("test-keys/ec.pem"),
                DecodingKey::from_ec_pem(include_bytes!("test-keys/ec.pub")),
                Algorithm::ES256,
            ),
        ];
        for (pem, public, algorithm) in keys {
            let public = public.unwrap();
            let token = issue(pem, "é \"1\"");
            let TokenData { header, claims, .. } = verify(&token, &public, algorithm).unwrap();
            assert_eq!(header.kid.as_deref(), Some("k1"));
            let mut names: Vec<&str> = claims.keys().map(String::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, ["aud", "exp", "function", "iat", "iss", "jti", "nbf", "sub", "tenant"]);
            assert_eq!(
                (&claims["sub"], &claims["tenant"], &claims["function"]),
                (&"é \"1\"".into(), &"acme".into(), &"f".into())
            );
            let time = |name: &str| claims[name].as_u64().unwrap();
            assert_eq!((time("iat"), time("exp")), (time("nbf"), time("nbf") + 60));
            let other = verify(&issue(pem, "s2"), &public, algorithm).unwrap().claims;
            assert_ne!(other["jti"], claims["jti"]);
            // One that was tampered with does not.
            let mut parts: Vec<&str> = token.split('.').collect();
            let foreign = issue(pem, "s2");
            parts[1] = foreign.split('.').nth(1).unwrap();
            assert!(verify(&parts.join("."), &public, algorithm).is_err());
        }
    }
}
