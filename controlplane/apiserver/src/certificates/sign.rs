//! [`Signer`]: the cluster's CA, as far as it signs what others ask for.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{ExtendedKeyUsagePurpose as Extended, IsCa, Issuer, KeyPair, KeyUsagePurpose as Usage, SerialNumber};

use super::request::Asked;

/// How long a certificate lives unless less is asked for: a year.
const LIFETIME_SECONDS: i64 = 365 * 24 * 3600;
const LIFETIME_SECONDS_MIN: i64 = 600;
/// Certificates begin before they are made: clocks differ.
const BACKDATE_SECONDS: i64 = 300;
/// The time before counts, except for certificates that live no longer than this.
const SHORT_SECONDS: i64 = 8 * 3600;

/// Signs certificates of others.
pub(crate) struct Signer {
    issuer: Issuer<'static, KeyPair>,
    /// No certificate outlives the CA.
    ends_at: Timestamp,
}

impl Signer {
    /// Of a CA that ends then.
    pub(crate) fn new(issuer: Issuer<'static, KeyPair>, ends_at: Timestamp) -> Self {
        Self { issuer, ends_at }
    }

    /// Signs what was asked for, as PEM.
    ///
    /// # Errors
    /// What cannot be signed.
    pub(super) fn sign(&self, asked: Asked, now: Timestamp) -> Result<String, String> {
        let Asked { mut params, usages, expiration_seconds } = asked;
        let lifetime = expiration_seconds.map_or(LIFETIME_SECONDS, i64::from);
        let lifetime = lifetime.clamp(LIFETIME_SECONDS_MIN, LIFETIME_SECONDS);
        let backdated = if lifetime > SHORT_SECONDS { BACKDATE_SECONDS } else { 0 };
        let end = (now.as_second() + lifetime - backdated).min(self.ends_at.as_second());
        let mut serial = [0_u8; 16];
        getrandom::fill(&mut serial).map_err(|e| format!("draw random bytes: {e}"))?;
        serial[0] &= 0x7f;
        let date =
            |second: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(second).unwrap_or(0));
        let certificate = &mut params.params;
        certificate.serial_number = Some(SerialNumber::from_slice(&serial));
        certificate.not_before = date(now.as_second() - BACKDATE_SECONDS);
        certificate.not_after = date(end);
        certificate.is_ca = IsCa::ExplicitNoCa;
        certificate.use_authority_key_identifier_extension = true;
        certificate.key_usages = usages.iter().filter_map(|usage| key_usage(usage)).collect();
        certificate.extended_key_usages = usages.iter().filter_map(|usage| extended_key_usage(usage)).collect();
        params.signed_by(&self.issuer).map(|signed| signed.pem()).map_err(|e| e.to_string())
    }
}

fn key_usage(usage: &str) -> Option<Usage> {
    Some(match usage {
        "digital signature" | "signing" => Usage::DigitalSignature,
        "key encipherment" => Usage::KeyEncipherment,
        _ => return None,
    })
}

fn extended_key_usage(usage: &str) -> Option<Extended> {
    Some(match usage {
        "client auth" => Extended::ClientAuth,
        "server auth" => Extended::ServerAuth,
        _ => return None,
    })
}
