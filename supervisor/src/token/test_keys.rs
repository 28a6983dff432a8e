//! Keys for tests, new ones each time: the repository holds none. PKCS#8 (RFC 5208, 5915, 8410), as openssl writes it.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// A private key of Ed25519.
pub fn ed25519() -> String {
    private(b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20", 32)
}

/// A private key of P-256.
pub fn p256() -> String {
    private(
        b"\x30\x41\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\
          \x04\x27\x30\x25\x02\x01\x01\x04\x20",
        32,
    )
}

/// A private key of P-384, with which nothing is signed here.
pub fn p384() -> String {
    private(
        b"\x30\x4e\x02\x01\x00\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\
          \x04\x37\x30\x35\x02\x01\x01\x04\x30",
        48,
    )
}

/// What is no private key: as long as a public one of Ed25519, and named so.
pub fn public() -> String {
    pem("PUBLIC KEY", b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", 32)
}

fn private(head: &[u8], length: usize) -> String {
    pem("PRIVATE KEY", head, length)
}

fn pem(label: &str, head: &[u8], length: usize) -> String {
    let mut key = vec![0; length];
    getrandom::fill(&mut key).expect("the kernel has random bytes");
    // Below the order of every curve.
    key[0] &= 0x7f;
    let text = STANDARD.encode([head, &key].concat());
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
