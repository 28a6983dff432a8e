//! Tokens that are signed here: JSON Web Tokens (RFC 7519), short-lived.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use sublet_proto::link::token::{NoToken, Token};

use super::whose::Whose;
use crate::hex::hex;

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

/// Why no token was signed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The kernel has none for the token's number.
    #[error("get random bytes")]
    Random(#[source] getrandom::Error),
    /// The key does not sign.
    #[error("sign")]
    Sign(#[source] jsonwebtoken::errors::Error),
    /// The claims are longer than a token may be.
    #[error(transparent)]
    NotAToken(#[from] NoToken),
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

    /// A token for this sub-tenant, which holds from now on.
    ///
    /// # Errors
    /// [`IssueError`], when there are no random bytes, or the claims cannot be signed.
    pub fn issue(&self, terms: &Terms<'_>, whose: &Whose) -> Result<Token, IssueError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(IssueError::Random)?;
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
        let token = self.sign(terms.key_id, &claims).map_err(IssueError::Sign)?;
        Ok(Token::try_from(token.into_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use jsonwebtoken::{DecodingKey, TokenData, Validation, decode, jwk::Jwk};
    use serde_json::Value;
    use sublet_pool::SubTenant;

    use super::{super::test_keys, *};

    type Claimed = HashMap<String, Value>;

    fn issue(signer: &Signer, label: &str) -> String {
        let terms = Terms { issuer: "i", audience: "a", key_id: Some("k1"), ttl: Duration::from_secs(60) };
        let whose =
            Whose { tenant: "acme".into(), function: "f".into(), sub_tenant: SubTenant::try_from(label).unwrap() };
        let token = signer.issue(&terms, &whose).unwrap();
        String::from_utf8(token.as_bytes().to_vec()).unwrap()
    }

    /// As whoever holds the public key does.
    fn verify(token: &str, signer: &Signer) -> jsonwebtoken::errors::Result<TokenData<Claimed>> {
        let public = Jwk::from_encoding_key(&signer.key, signer.algorithm)?;
        let mut validation = Validation::new(signer.algorithm);
        validation.set_audience(&["a"]);
        validation.set_issuer(&["i"]);
        validation.set_required_spec_claims(&["exp", "nbf", "sub", "aud", "iss"]);
        validation.validate_nbf = true;
        decode(token, &DecodingKey::from_jwk(&public)?, &validation)
    }

    #[test]
    fn token_of_each_kind_of_key_says_whose_it_is_and_verifies() {
        for (pem, algorithm) in [(test_keys::ed25519(), Algorithm::EdDSA), (test_keys::p256(), Algorithm::ES256)] {
            let signer = Signer::from_pem(pem.as_bytes()).expect("it is one");
            assert_eq!(signer.algorithm, algorithm);
            let token = issue(&signer, "\u{e9} \"1\"");
            let TokenData { header, claims, .. } = verify(&token, &signer).unwrap();
            assert_eq!(header.kid.as_deref(), Some("k1"));
            let mut names: Vec<&str> = claims.keys().map(String::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, ["aud", "exp", "function", "iat", "iss", "jti", "nbf", "sub", "tenant"]);
            assert_eq!(claims["sub"], "\u{e9} \"1\"");
            assert_eq!((&claims["tenant"], &claims["function"]), (&"acme".into(), &"f".into()));
            let time = |name: &str| claims[name].as_u64().unwrap();
            assert_eq!((time("iat"), time("exp")), (time("nbf"), time("nbf") + 60));
            let foreign = issue(&signer, "s2");
            assert_ne!(verify(&foreign, &signer).unwrap().claims["jti"], claims["jti"], "each has its own");
            // One that was tampered with does not verify, nor does one by another key.
            let mut parts: Vec<&str> = token.split('.').collect();
            parts[1] = foreign.split('.').nth(1).unwrap();
            assert!(verify(&parts.join("."), &signer).is_err());
            let other = Signer::from_pem(test_keys::ed25519().as_bytes()).expect("it is one");
            assert!(verify(&token, &other).is_err());
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let signer = Signer::from_pem(test_keys::ed25519().as_bytes()).expect("it is one");
        let shown = format!("{signer:?}");
        assert!(shown.contains("redacted") && shown.len() < 200, "{shown}");
    }
}
