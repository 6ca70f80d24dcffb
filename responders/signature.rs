//! Signatures of webhooks, as the Standard Webhooks specification has them: symmetric, `v1`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use relight_core::responder::Secret;
use sha2::Sha256;

/// Keys that sign; more than one while a secret is being replaced.
pub(crate) struct Signer(Vec<Vec<u8>>);

impl Signer {
    /// From `whsec_` and base64 of 24 to 64 bytes; several are separated by blanks.
    pub(crate) fn new(secrets: &Secret) -> Result<Self, String> {
        let keys: Result<Vec<Vec<u8>>, String> = secrets.reveal().split_whitespace().map(key).collect();
        match keys? {
            keys if keys.is_empty() => Err("is empty".to_owned()),
            keys => Ok(Self(keys)),
        }
    }

    /// The `webhook-signature` header.
    pub(crate) fn sign(&self, id: &str, unix_secs: i64, body: &[u8]) -> String {
        let sign = |key: &Vec<u8>| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
            mac.update(format!("{id}.{unix_secs}.").as_bytes());
            mac.update(body);
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        };
        self.0.iter().map(sign).collect::<Vec<_>>().join(" ")
    }
}

fn key(text: &str) -> Result<Vec<u8>, String> {
    let wrong = "wants `whsec_` and base64 of 24 to 64 bytes";
    let encoded = text.strip_prefix("whsec_").ok_or(wrong)?;
    let key = STANDARD.decode(encoded).map_err(|_| wrong)?;
    if (24..=64).contains(&key.len()) { Ok(key) } else { Err(wrong.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// Guarantee: what receivers check with any library of the specification's authors. The vector is theirs.
    #[test]
    fn h12_signature_vector() {
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let sign = |secrets: &str| {
            let signer = Signer::new(&Secret::new(secrets)).expect("a secret");
            signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#)
        };
        assert_eq!(sign(SECRET), expected);
        let other = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        assert_eq!(sign(&format!("{SECRET} {other}")), format!("{expected} {}", sign(other)));
    }

    #[test]
    fn bad_secrets_are_refused_and_not_shown() {
        for secret in ["", "hunter2", "whsec_hunter2!", "whsec_aHVudGVyMg=="] {
            let Err(message) = Signer::new(&Secret::new(secret)) else { panic!("{secret} was taken") };
            assert!(!message.contains("hunter2") && !message.contains("aHVu"), "{message}");
        }
    }
}
