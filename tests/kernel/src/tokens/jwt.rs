//! Tokens that the supervisor signs.

use std::{collections::HashMap, fs, io::Read, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, TokenData, Validation, decode, jwk::Jwk};
use serde_json::Value;

use super::{FILE, config, give, os};
use crate::{Outcome, client::Client, configs::Place, ensure, supervisor::Supervisor};

/// What is before the 32 bytes of a private key of Ed25519 (RFC 8410).
const ED25519: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// A new key is written where the supervisor reads it. Returns what its tokens are verified with.
fn write_key(path: &Path) -> Result<DecodingKey, String> {
    let mut key = [0; 32];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut key)).map_err(os)?;
    let text = STANDARD.encode([ED25519, &key].concat());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
    fs::write(path, &pem).map_err(os)?;
    give(path)?;
    let private = EncodingKey::from_ed_pem(pem.as_bytes()).map_err(os)?;
    Jwk::from_encoding_key(&private, Algorithm::EdDSA).and_then(|public| DecodingKey::from_jwk(&public)).map_err(os)
}

/// As the service does that a function calls.
fn verify(token: &str, key: &DecodingKey) -> Result<TokenData<HashMap<String, Value>>, String> {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&["https://api.example.com"]);
    validation.set_issuer(&["https://sublet.example.com"]);
    validation.set_required_spec_claims(&["exp", "nbf", "sub", "aud", "iss"]);
    validation.validate_nbf = true;
    decode(token, key, &validation).map_err(|error| format!("{token}: {error}"))
}

fn read(client: &mut Client, sub_tenant: &str) -> Result<(String, String), String> {
    let (token, receipt) = client.probe(sub_tenant, &format!("read {FILE}"))?;
    Ok((token, receipt.worker))
}

pub(super) fn signed() -> Outcome {
    let place = Place::new()?;
    let path = place.path("key.pem");
    let old = write_key(&path)?;
    let settings = format!(
        "token.provider = \"jwt\"\ntoken.key = {:?}\ntoken.key_id = \"k1\"\ntoken.ttl = \"1m\"\n\
         token.issuer = \"https://sublet.example.com\"\ntoken.audience = \"https://api.example.com\"\n",
        path.display().to_string()
    );
    let text = config(&place, &[place.function("probe", &settings)]);
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (token, worker) = read(&mut client, "s1")?;
    let TokenData { header, claims, .. } = verify(&token, &old)?;
    ensure!(header.kid.as_deref() == Some("k1"), "{header:?}");
    ensure!(claims["sub"] == "s1" && claims["tenant"] == "acme" && claims["function"] == "probe", "{claims:?}");
    let time = |name: &str| claims[name].as_u64().unwrap_or_default();
    ensure!(time("exp") == time("iat") + 60 && time("nbf") == time("iat"), "{claims:?}");
    let (by_crate, _) = client.probe("s1", "credential")?;
    ensure!(by_crate == token, "the crate for Rust functions finds {by_crate:?}");
    let other = verify(&read(&mut client, "s2")?.0, &old)?.claims;
    ensure!(other["sub"] == "s2" && other["jti"] != claims["jti"], "{other:?}");
    let described = supervisor.admin(&["describe", &worker])?;
    ensure!(described["token"]["provider"] == "jwt" && described["token"]["expires"].is_string(), "{described}");
    ensure!(!described.to_string().contains(&token), "{described}");

    // A key that cannot be taken: the reload is refused, and everything goes on with the one before.
    let spare = supervisor.place.path("spare.pem");
    let new = write_key(&spare)?;
    let shell = |script: &str| -> Outcome {
        let done =
            std::process::Command::new("/bin/sh").args(["-c", script]).current_dir(&supervisor.place.dir).status();
        ensure!(done.as_ref().is_ok_and(|status| status.success()), "{script}: {done:?}");
        Ok(())
    };
    let cases = [
        ("chmod 0600 key.pem", "may not read"),
        ("chmod 0644 key.pem", "everybody on this host may use it"),
        ("chmod 0640 key.pem; echo nonsense > key.pem", "not a private key"),
        ("rm key.pem", "does not exist"),
    ];
    for (at, (script, says)) in cases.into_iter().enumerate() {
        shell(script)?;
        let told = supervisor.admin(&["reload"])?;
        let error = told["error"].as_str().unwrap_or_default();
        ensure!(error.contains("function.probe.token.key") && error.contains(says), "{script}: {told}");
        ensure!(error.contains("stays in force"), "{script}: {told}");
        ensure!(read(&mut client, "s1")? == (token.clone(), worker.clone()), "{script}: the worker is another");
        verify(&read(&mut client, &format!("new-{at}"))?.0, &old)?;
    }

    // Another key: for tokens that are made from now on, in the workers that are there.
    shell("mv spare.pem key.pem")?;
    supervisor.admin(&["reload"])?;
    let (token, _) = read(&mut client, "s3")?;
    verify(&token, &new)?;
    ensure!(verify(&token, &old).is_err(), "the old key signs on");
    ensure!(read(&mut client, "s1")?.1 == worker, "the worker is another");

    shell("echo nonsense > key.pem")?;
    let mut supervisor = supervisor;
    let place = supervisor.take_place();
    supervisor.stop()?;
    let refused = Supervisor::start(place, &text).err().ok_or("it starts with a broken key")?;
    ensure!(refused.contains("function.probe.token.key") && refused.contains("not a private key"), "{refused}");
    Ok(())
}
