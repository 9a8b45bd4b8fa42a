//! The label `pod-template-hash`: a short name for a pod template, made of letters and digits that spell no words.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// As in Kubernetes' `rand.SafeEncodeString`: no vowels, no 0, 1, 3.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The hash of a template. `collisions` changes it when another template has the same.
pub(crate) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    // A template of the API always has a JSON form; if it had none, all such would share one hash, which the
    // collision count resolves.
    let mut bytes = serde_json::to_vec(template).unwrap_or_default();
    if let Some(collisions) = collisions {
        bytes.extend_from_slice(&collisions.to_le_bytes());
    }
    safe_suffix(&bytes)
}

/// FNV-1a of the bytes, in the safe alphabet: at most ten characters.
fn safe_suffix(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    safe_encode(&hash.to_string())
}

/// Each byte as a character of the safe alphabet.
pub(crate) fn safe_encode(text: &str) -> String {
    text.bytes().map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])).collect()
}
