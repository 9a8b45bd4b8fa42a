//! What must hold for any input at all, each as a function from bytes that panics when it does not.
//!
//! [`TARGETS`] are run over mutated examples in every test run, and without end by cargo-fuzz:
//! `cd tests/fuzz/libfuzzer && cargo fuzz run apply ../corpus/apply`. An input is text in lines; each target says what it
//! makes of them. A line that a target cannot use ends it without a finding.

#![expect(clippy::panic, reason = "that is how a property says that it does not hold")]

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use podium_api::{
    FieldSelector, KindRef, Quantity, Selector,
    apply::{self, ManagedFields, Reset, Writer},
    kind_of, kinds,
    patch::{self, PatchBody},
    read::{self, Media},
};
use podium_custom::cel::{Budget, Env, Expression, Vars};
use serde_json::Value;

mod guests;

pub use guests::{modules, pods};

/// A property, by name, and how many mutations of its examples a test run looks at.
pub type Target = (&'static str, fn(&[u8]), u64);

/// For properties that are looked at in microseconds.
const MANY: u64 = 20_000;

/// Every property.
pub const TARGETS: [Target; 9] = [
    ("apply", apply, MANY),
    ("bodies", bodies, MANY),
    ("cel", cel, MANY),
    ("managed_fields", managed_fields, MANY),
    // Each is compiled and run.
    ("modules", modules, 200),
    ("patches", patches, MANY),
    ("pods", pods, MANY / 4),
    ("quantities", quantities, MANY),
    ("selectors", selectors, MANY),
];

fn lines(data: &[u8]) -> impl Iterator<Item = &str> {
    str::from_utf8(data).unwrap_or_default().lines()
}

fn json(line: Option<&str>) -> Option<Value> {
    serde_json::from_str(line?).ok()
}

/// One of the kinds with the most ways to merge lists, or any by the number that the line holds.
fn kind(line: Option<&str>) -> Option<KindRef> {
    match line? {
        "Deployment" => Some(kind_of::<Deployment>()),
        "Service" => Some(kind_of::<Service>()),
        number => kinds::all().into_iter().nth(number.parse().ok()?),
    }
}

/// Lines: a kind, a live object, a configuration. Applying twice is applying once; what was applied can be taken back.
pub fn apply(data: &[u8]) {
    let mut lines = lines(data);
    let Some(kind) = kind(lines.next()) else { return };
    let (Some(live), Some(config)) = (json(lines.next()), json(lines.next())) else { return };
    if !live.is_object() || !config.is_object() {
        return;
    }
    let types = kind.types();
    let version = kind.names().api_version();
    let writer = |manager| Writer { manager, subresource: "", api_version: &version, time: Timestamp::UNIX_EPOCH };
    let reset = Reset(&["status"]);
    let Ok(owned) = apply::update(&types, None, &live, ManagedFields::default(), &writer("one"), &reset) else {
        return;
    };
    let applied = apply::apply(&types, Some(&live), &config, owned, &writer("two"), &reset, true);
    let Ok((merged, managed)) = applied else { return };
    let again = apply::apply(&types, Some(&merged), &config, managed.clone(), &writer("two"), &reset, false);
    let Ok((same, still)) = again else { panic!("what was applied cannot be applied again: {again:?}") };
    assert_eq!(merged, same, "applying twice changes the object");
    assert_eq!(managed.to_json(), still.to_json(), "applying twice changes the owners");
}

/// Bytes as a body of any format, and as an object of a few kinds.
pub fn bodies(data: &[u8]) {
    for media in [Media::Json, Media::Yaml, Media::Protobuf] {
        let Ok(body) = read::read(media, data) else { continue };
        for kind in [kind_of::<Deployment>(), kind_of::<Service>()] {
            let Ok(decoded) = kind.decode_value(body.value.clone()) else { continue };
            let mut object = decoded.object;
            kind.fill_defaults(&mut *object);
            let once = object.boxed_clone();
            kind.fill_defaults(&mut *object);
            assert!(object.same_as(&*once), "defaults are not idempotent");
            kind.validate(&*object, &mut podium_api::FieldErrors::new());
        }
    }
}

/// Lines: an expression, a value for `self`. It ends, whatever it is.
pub fn cel(data: &[u8]) {
    let mut lines = lines(data);
    let Some(text) = lines.next() else { return };
    let value = json(lines.next()).unwrap_or(Value::Null);
    let env = Env::new().variable("self", podium_custom::cel::Type::Dyn);
    let Ok(expression) = Expression::compile(text, &env) else { return };
    let vars = Vars::new().json("self", &value);
    if let Ok(result) = expression.evaluate(&vars, &Budget::new(100_000)) {
        let _ = result.to_json();
    }
}

/// Bytes as `metadata.managedFields`: what can be read is written as it was.
pub fn managed_fields(data: &[u8]) {
    let Ok(managed) = ManagedFields::from_json(data) else { return };
    let written = managed.to_json();
    if managed.is_empty() {
        return;
    }
    let again = ManagedFields::from_json(&written);
    let Ok(again) = again else { panic!("what was written cannot be read: {again:?}") };
    assert_eq!(again.to_json(), written);
}

/// Lines: a kind, an object, a patch. Every format of patch answers; a merge patch done twice is done once.
pub fn patches(data: &[u8]) {
    let mut lines = lines(data);
    let Some(kind) = kind(lines.next()) else { return };
    let (Some(object), Some(value)) = (json(lines.next()), json(lines.next())) else { return };
    let merged = patch::apply(&*kind, object.clone(), &PatchBody::Merge(value.clone()));
    if let Ok(merged) = merged {
        let again = patch::apply(&*kind, merged.clone(), &PatchBody::Merge(value.clone()));
        assert_eq!(again.ok(), Some(merged), "a merge patch is not idempotent");
    }
    let _ = patch::apply(&*kind, object.clone(), &PatchBody::Strategic(value.clone()));
    let _ = patch::apply(&*kind, object, &PatchBody::Json(value));
}

/// Each line as a quantity: what is read is written so that it reads the same.
pub fn quantities(data: &[u8]) {
    for line in lines(data) {
        let Ok(quantity) = line.parse::<Quantity>() else { continue };
        let written = quantity.to_string();
        let again = written.parse::<Quantity>();
        assert_eq!(again.map(|q| q.milli()), Ok(quantity.milli()), "{line:?} was written as {written:?}");
        let _ = (quantity.value(), quantity.bytes(), quantity.millicores(), quantity.is_zero());
    }
}

/// Each line as a label selector and as a field selector: what is read is written so that it reads the same.
pub fn selectors(data: &[u8]) {
    for line in lines(data) {
        if let Ok(selector) = Selector::parse(line) {
            let written = selector.to_string();
            let again = Selector::parse(&written);
            assert_eq!(again.as_ref(), Ok(&selector), "{line:?} was written as {written:?}");
        }
        let _ = FieldSelector::parse(line);
    }
}
