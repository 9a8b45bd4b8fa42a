//! The functions that there are, and what they take and give.
//!
//! One line for each: `T.name(A) R` is a method of `T`, `name(A) R` a function. `A`, `B` are any types, the same wherever
//! they stand in one line.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use super::Type;

/// One way to call a function.
pub(crate) struct Overload {
    pub(crate) method: bool,
    /// The target of a method is the first.
    pub(crate) args: Vec<Type>,
    pub(crate) result: Type,
}

const LANGUAGE: &str = "
dyn(A) dyn
type(A) type
size(string) int
size(bytes) int
size(list<A>) int
size(map<A,B>) int
string.size() int
bytes.size() int
list<A>.size() int
map<A,B>.size() int
int(int) int
int(uint) int
int(double) int
int(string) int
int(timestamp) int
int(duration) int
uint(uint) uint
uint(int) uint
uint(double) uint
uint(string) uint
double(double) double
double(int) double
double(uint) double
double(string) double
bool(bool) bool
bool(string) bool
bytes(bytes) bytes
bytes(string) bytes
string(string) string
string(bool) string
string(int) string
string(uint) string
string(double) string
string(bytes) string
string(timestamp) string
string(duration) string
string(ip) string
string(cidr) string
timestamp(timestamp) timestamp
timestamp(string) timestamp
timestamp(int) timestamp
duration(duration) duration
duration(string) duration
duration(int) duration
string.contains(string) bool
string.startsWith(string) bool
string.endsWith(string) bool
string.matches(string) bool
matches(string,string) bool
timestamp.getFullYear() int
timestamp.getFullYear(string) int
timestamp.getMonth() int
timestamp.getMonth(string) int
timestamp.getDate() int
timestamp.getDate(string) int
timestamp.getDayOfMonth() int
timestamp.getDayOfMonth(string) int
timestamp.getDayOfWeek() int
timestamp.getDayOfWeek(string) int
timestamp.getDayOfYear() int
timestamp.getDayOfYear(string) int
timestamp.getHours() int
timestamp.getHours(string) int
timestamp.getMinutes() int
timestamp.getMinutes(string) int
timestamp.getSeconds() int
timestamp.getSeconds(string) int
timestamp.getMilliseconds() int
timestamp.getMilliseconds(string) int
duration.getHours() int
duration.getMinutes() int
duration.getSeconds() int
duration.getMilliseconds() int
optional.none() opt<A>
optional.of(A) opt<A>
optional.ofNonZeroValue(A) opt<A>
opt<A>.hasValue() bool
opt<A>.value() A
opt<A>.or(opt<A>) opt<A>
opt<A>.orValue(A) A
list<A>.first() opt<A>
list<A>.last() opt<A>
string.charAt(int) string
string.indexOf(string) int
string.indexOf(string,int) int
string.lastIndexOf(string) int
string.lastIndexOf(string,int) int
string.lowerAscii() string
string.upperAscii() string
string.replace(string,string) string
string.replace(string,string,int) string
string.split(string) list<string>
string.split(string,int) list<string>
string.substring(int) string
string.substring(int,int) string
string.trim() string
string.reverse() string
strings.quote(string) string
list<string>.join() string
list<string>.join(string) string
string.find(string) string
string.findAll(string) list<string>
string.findAll(string,int) list<string>
list<A>.isSorted() bool
list<A>.sum() A
list<A>.min() A
list<A>.max() A
list<A>.indexOf(A) int
list<A>.lastIndexOf(A) int
list<A>.includes(A) bool
list<A>.slice(int,int) list<A>
list<A>.flatten() list<dyn>
list<A>.flatten(int) list<dyn>
list<A>.distinct() list<A>
list<A>.sort() list<A>
list<A>.reverse() list<A>
lists.range(int) list<int>
sets.contains(list<A>,list<A>) bool
sets.equivalent(list<A>,list<A>) bool
sets.intersects(list<A>,list<A>) bool
quantity(string) quantity
isQuantity(string) bool
quantity.sign() int
quantity.isInteger() bool
quantity.asInteger() int
quantity.asApproximateFloat() double
quantity.isGreaterThan(quantity) bool
quantity.isLessThan(quantity) bool
quantity.compareTo(quantity) int
quantity.add(quantity) quantity
quantity.add(int) quantity
quantity.sub(quantity) quantity
quantity.sub(int) quantity
authorizer.path(string) pathcheck
authorizer.group(string) groupcheck
authorizer.serviceAccount(string,string) authorizer
groupcheck.resource(string) resourcecheck
resourcecheck.subresource(string) resourcecheck
resourcecheck.namespace(string) resourcecheck
resourcecheck.name(string) resourcecheck
resourcecheck.fieldSelector(string) resourcecheck
resourcecheck.labelSelector(string) resourcecheck
resourcecheck.check(string) decision
pathcheck.check(string) decision
decision.allowed() bool
decision.reason() string
decision.errored() bool
decision.error() string
";

/// Those that `kube-cel` has.
const LIBRARY: &str = "
string.format(list<dyn>) string
base64.encode(bytes) string
base64.decode(string) bytes
jsonpatch.escapeKey(string) string
url(string) url
isURL(string) bool
url.getScheme() string
url.getHost() string
url.getHostname() string
url.getPort() string
url.getEscapedPath() string
url.getQuery() map<string,list<string>>
ip(string) ip
isIP(string) bool
ip.isCanonical(string) bool
ip.family() int
ip.isUnspecified() bool
ip.isLoopback() bool
ip.isLinkLocalMulticast() bool
ip.isLinkLocalUnicast() bool
ip.isGlobalUnicast() bool
cidr(string) cidr
isCIDR(string) bool
cidr.containsIP(string) bool
cidr.containsIP(ip) bool
cidr.containsCIDR(string) bool
cidr.containsCIDR(cidr) bool
cidr.ip() ip
cidr.masked() cidr
cidr.prefixLength() int
semver(string) semver
semver(string,bool) semver
isSemver(string) bool
isSemver(string,bool) bool
semver.major() int
semver.minor() int
semver.patch() int
semver.isGreaterThan(semver) bool
semver.isLessThan(semver) bool
semver.compareTo(semver) int
format.named(string) opt<format>
format.dns1123Label() format
format.dns1123Subdomain() format
format.dns1035Label() format
format.qualifiedName() format
format.dns1123LabelPrefix() format
format.dns1123SubdomainPrefix() format
format.dns1035LabelPrefix() format
format.labelValue() format
format.uri() format
format.uuid() format
format.byte() format
format.date() format
format.datetime() format
format.validate(string) opt<list<string>>
math.abs(int) int
math.abs(uint) uint
math.abs(double) double
math.bitAnd(int,int) int
math.bitAnd(uint,uint) uint
math.bitOr(int,int) int
math.bitOr(uint,uint) uint
math.bitXor(int,int) int
math.bitXor(uint,uint) uint
math.bitNot(int) int
math.bitNot(uint) uint
math.bitShiftLeft(int,int) int
math.bitShiftLeft(uint,int) uint
math.bitShiftRight(int,int) int
math.bitShiftRight(uint,int) uint
math.ceil(double) double
math.floor(double) double
math.round(double) double
math.trunc(double) double
math.sqrt(double) double
math.sqrt(int) double
math.sqrt(uint) double
math.sign(int) int
math.sign(uint) uint
math.sign(double) double
math.isNaN(double) bool
math.isInf(double) bool
math.isFinite(double) bool
math.greatest(A) dyn
math.greatest(A,B) dyn
math.greatest(A,B,C) dyn
math.greatest(A,B,C,D) dyn
math.least(A) dyn
math.least(A,B) dyn
math.least(A,B,C) dyn
math.least(A,B,C,D) dyn
";

/// Names that stand before functions and are no types that have methods of the same spelling.
const SPACES: [&str; 10] =
    ["optional", "strings", "lists", "sets", "base64", "jsonpatch", "math", "ip.isCanonical", "format.", "cel"];

static TABLE: LazyLock<HashMap<String, Vec<Overload>>> = LazyLock::new(|| {
    let mut table: HashMap<String, Vec<Overload>> = HashMap::new();
    for line in LANGUAGE.lines().chain(LIBRARY.lines()).filter(|l| !l.is_empty()) {
        if let Some((name, overload)) = read(line) {
            table.entry(name).or_default().push(overload);
        }
    }
    table
});

static FROM_LIBRARY: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let mut names: HashSet<String> = LIBRARY.lines().filter_map(read).map(|(name, _)| name).collect();
    names.extend(["string".to_owned(), "ip".to_owned()]);
    names
});

/// The ways to call a function or method of this name.
pub(crate) fn named(name: &str) -> &'static [Overload] {
    TABLE.get(name).map_or(&[], Vec::as_slice)
}

/// Whether there is a function (not a method) of this name.
pub(crate) fn is_function(name: &str) -> bool {
    named(name).iter().any(|o| !o.method)
}

/// Whether it comes from `kube-cel`.
pub(crate) fn is_library(name: &str) -> bool {
    FROM_LIBRARY.contains(name)
}

fn is_space(before: &str, name: &str) -> bool {
    SPACES
        .iter()
        .any(|s| *s == before || *s == format!("{before}.{name}") || *s == format!("{before}.") && name != "validate")
}

fn read(line: &str) -> Option<(String, Overload)> {
    let open = line.find('(')?;
    let close = line.rfind(')')?;
    let (head, args, result) = (&line[..open], &line[open + 1..close], line[close + 1..].trim());
    let mut types = if args.is_empty() { Vec::new() } else { split(args).into_iter().map(of).collect() };
    let (name, method) = match head.rsplit_once('.') {
        Some((before, name)) if !is_space(before, name) => {
            types.insert(0, of(before));
            (name, true)
        }
        _ => (head, false),
    };
    Some((name.to_owned(), Overload { method, args: types, result: of(result) }))
}

/// At commas that are not inside brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn of(text: &str) -> Type {
    if let Some((outer, inner)) = text.strip_suffix('>').and_then(|t| t.split_once('<')) {
        let parts = split(inner);
        return match (outer, parts.as_slice()) {
            ("list", [item]) => Type::list(of(item)),
            ("opt", [item]) => Type::optional(of(item)),
            ("map", [key, value]) => Type::map(of(key), of(value)),
            _ => Type::Dyn,
        };
    }
    match text {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "type" => Type::Type,
        "A" => Type::Param(0),
        "B" => Type::Param(1),
        "C" => Type::Param(2),
        "D" => Type::Param(3),
        "quantity" => Type::Opaque("kubernetes.Quantity"),
        "ip" => Type::Opaque("net.IP"),
        "cidr" => Type::Opaque("net.CIDR"),
        "url" => Type::Opaque("kubernetes.URL"),
        "semver" => Type::Opaque("kubernetes.Semver"),
        "format" => Type::Opaque("kubernetes.NamedFormat"),
        "authorizer" => Type::Opaque("kubernetes.authorization.Authorizer"),
        "pathcheck" => Type::Opaque("kubernetes.authorization.PathCheck"),
        "groupcheck" => Type::Opaque("kubernetes.authorization.GroupCheck"),
        "resourcecheck" => Type::Opaque("kubernetes.authorization.ResourceCheck"),
        "decision" => Type::Opaque("kubernetes.authorization.Decision"),
        _ => Type::Dyn,
    }
}
