//! Expressions and what becomes of them.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn object() -> Json {
    json!({
        "spec": {"replicas": 3, "name": "web", "list": [1, 2, 3], "labels": {"a": "1", "b": "2"}, "half": 0.5,
                 "items": [{"k": "x", "v": 1}, {"k": "y", "v": 2}], "empty": [], "nothing": null},
        "metadata": {"namespace": "default"},
    })
}

fn env() -> Env {
    let mut env = Env::admission(AdmissionEnv { params: true, authorizer: true, variables: true, patches: true });
    env.compose("double", Type::Int);
    env.compose("bad", Type::Dyn);
    env
}

struct Alice;

impl Authorizer for Alice {
    fn authorize(&self, a: &Attributes) -> Decision {
        Decision {
            allowed: a.verb == "create" && a.resource == "pods",
            reason: format!("{}/{}", a.group, a.namespace),
            error: None,
        }
    }
}

fn run(text: &str) -> String {
    let expression = match Expression::compile(text, &env()) {
        Ok(expression) => expression,
        Err(error) => return format!("compile: {}", error.to_string().lines().next().unwrap_or_default()),
    };
    let double = Expression::compile("object.spec.replicas * 2", &env()).unwrap();
    let bad = Expression::compile("object.spec.missing", &env()).unwrap();
    let (object, request) = (object(), json!({"operation": "CREATE", "namespace": "default"}));
    let namespace =
        json!({"metadata": {"name": "default", "creationTimestamp": "2020-01-01T00:00:00Z", "labels": {"a-b": "c"}}});
    let vars = Vars::new()
        .json("object", &object)
        .namespace(Some(&namespace))
        .null("oldObject")
        .null("params")
        .json("request", &request)
        .variable("double", &double)
        .variable("bad", &bad)
        .authorizer(&Alice, Attributes { resource: "pods".into(), ..Attributes::default() });
    match expression.evaluate(&vars, &Budget::new(COST_PER_OBJECT_MAX)) {
        Ok(value) => value.to_json().map_or_else(|_| value.type_name(), |json| json.to_string()),
        Err(error) => format!("error: {error}"),
    }
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(run(text), *expected, "{text}");
    }
}

#[test]
fn operators() {
    check(&[
        ("1 + 2 * 3 - 4 / 2 % 3", "5"),
        ("-3 + 1", "-2"),
        ("- 3", "-3"),
        ("--3", "3"),
        ("!true || !!true", "true"),
        ("!!false", "false"),
        ("1 < 2 && 2.5 >= 2 && 'a' < 'b' && b'a' == b'a'", "true"),
        (
            "1 == 1.0 ? 'yes' : 'no'",
            "compile: compilation failed: ERROR: <input>:1:3: found no matching overload for '_==_' applied to '(int, double)'",
        ),
        ("dyn(1) == 1.0 && dyn(1u) == 1", "true"),
        ("true ? 1 : 2", "1"),
        ("false ? 1 : true ? 2 : 3", "2"),
        ("'a' + \"b\" + r'\\n' + '\\u00e4'", "\"ab\\\\nä\""),
        ("[1] + [2, 3] == [1, 2, 3]", "true"),
        ("2 in [1, 2] && 'a' in {'a': 1} && !('z' in object.spec.labels)", "true"),
        ("{'a': 1, 'b': [true]}", "{\"a\":1,\"b\":[true]}"),
        ("9223372036854775807 + 1", "error: integer overflow"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("9223372036854775808", "compile: compilation failed: ERROR: <input>:1:1: invalid int literal"),
        ("1 / 0", "error: division by zero"),
        ("1 % 0", "error: modulus by zero"),
        ("0u - 1u", "error: unsigned integer overflow"),
        ("0x10 + 1", "17"),
        ("1e3 + .5", "1000.5"),
        ("false && 1 / 0 == 1", "false"),
        ("1 / 0 == 1 || true", "true"),
        ("1 / 0 == 1 && true", "error: division by zero"),
        ("'''a\nb''' == 'a\\nb' // the rest", "true"),
        ("null == null && object.spec.nothing == null", "true"),
    ]);
}

#[test]
fn fields_and_items() {
    check(&[
        ("object.spec.replicas", "3"),
        ("object.metadata.namespace == request.namespace", "true"),
        ("object['spec']['name']", "\"web\""),
        ("object.spec.list[1]", "2"),
        ("object.spec.list[3]", "error: index out of bounds: 3"),
        ("object.spec.list[-1]", "error: index out of bounds: -1"),
        ("object.spec.missing", "error: no such key: missing"),
        ("has(object.spec.name) && !has(object.spec.missing)", "true"),
        ("has(object.nowhere.name)", "error: no such key: nowhere"),
        ("object.?nowhere.name.orValue('none')", "\"none\""),
        ("object.?spec.name.orValue('none')", "\"web\""),
        ("object.spec[?'name'].value() + object.spec.labels[?'z'].orValue('-')", "\"web-\""),
        ("optional.of(1).optMap(x, x + 1).value()", "2"),
        ("optional.none().hasValue()", "false"),
        ("optional.ofNonZeroValue(0).or(optional.of(5)).value()", "5"),
        ("optional.none().value()", "error: optional.none() dereference"),
        ("[?optional.none(), 1, ?optional.of(2)]", "[1,2]"),
        ("{?'a': optional.none(), 'b': 1}", "{\"b\":1}"),
        ("request.what", "compile: compilation failed: ERROR: <input>:1:8: undefined field 'what'"),
        ("oldObject == null && params == null", "true"),
        ("namespaceObject.metadata.creationTimestamp.getFullYear()", "2020"),
        ("namespaceObject.metadata.labels['a-b'] + namespaceObject.metadata.name", "\"cdefault\""),
        ("has(namespaceObject.spec)", "false"),
        ("variables.double + variables.double", "12"),
        ("variables.bad", "error: composited variable \"bad\" fails to evaluate: no such key: missing"),
        ("variables.unknown", "compile: compilation failed: ERROR: <input>:1:10: undefined field 'unknown'"),
        ("'a'.b", "compile: compilation failed: ERROR: <input>:1:4: type 'string' does not support field selection"),
    ]);
}

#[test]
fn macros_bind_names() {
    check(&[
        ("object.spec.list.all(x, x > 0)", "true"),
        ("object.spec.list.exists(x, x == 2)", "true"),
        ("object.spec.list.exists_one(x, x > 2)", "true"),
        ("object.spec.list.map(x, x * 2)", "[2,4,6]"),
        ("object.spec.list.map(x, x > 1, x * 2)", "[4,6]"),
        ("object.spec.list.filter(x, x != 2)", "[1,3]"),
        ("object.spec.labels.all(k, k in ['a', 'b'])", "true"),
        ("object.spec.labels.map(k, k)", "[\"a\",\"b\"]"),
        ("object.spec.list.all(i, v, v == i + 1)", "true"),
        ("object.spec.labels.exists(k, v, k == 'b' && v == '2')", "true"),
        ("object.spec.list.transformList(i, v, i + v)", "[1,3,5]"),
        ("object.spec.labels.transformMap(k, v, k + v)", "{\"a\":\"a1\",\"b\":\"b2\"}"),
        ("object.spec.labels.transformMapEntry(k, v, {v: k})", "{\"1\":\"a\",\"2\":\"b\"}"),
        ("cel.bind(x, object.spec.replicas, x * x)", "9"),
        ("[1, 0].all(x, 1 / x > 5)", "false"),
        ("[0, 1].exists(x, 1 / x == 1)", "true"),
        ("[0].exists(x, 1 / x == 1)", "error: division by zero"),
        ("object.spec.items.map(i, i.k).join(',')", "\"x,y\""),
        ("[3, 1, 2].sortBy(x, -x)", "[3,2,1]"),
        (
            "object.spec.list.all(x.y, true)",
            "compile: compilation failed: ERROR: <input>:1:23: argument must be a simple name",
        ),
        ("has(object)", "compile: compilation failed: ERROR: <input>:1:1: invalid argument to has() macro"),
        (
            "1.all(x, true)",
            "compile: compilation failed: ERROR: <input>:1:1: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        (
            "'a'.all(x, true)",
            "compile: compilation failed: ERROR: <input>:1:1: expression of type 'string' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
    ]);
}

#[test]
fn functions_of_the_language_and_the_libraries() {
    check(&[
        ("size('añb') == 3 && [1, 2].size() == 2 && size(object.spec.labels) == 2", "true"),
        ("int('3') + int(2.9) + int(1u)", "6"),
        ("string(1.5) + string(true) + string(2)", "\"1.5true2\""),
        ("double('1e3')", "1000.0"),
        ("int('x')", "error: strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("type(1) == int && type('a') == string && type([]) == list && type(null) == null_type", "true"),
        ("'hello'.contains('ell') && 'hello'.startsWith('he') && 'hello'.endsWith('lo')", "true"),
        ("'hello'.matches('^h.*o$')", "true"),
        ("'a-b-c'.split('-').map(x, x.upperAscii()).join('+')", "\"A+B+C\""),
        ("'a,b'.split(',', 0).size() + 'abc'.split('').size()", "3"),
        ("'tacocat'.substring(4) + 'tacocat'.substring(0, 4) + 'tacocat'.charAt(3)", "\"cattacoo\""),
        ("'tacocat'.substring(4, 2)", "error: invalid substring range. start: 4, end: 2"),
        ("'tacocat'.indexOf('ac') + 'tacocat'.lastIndexOf('t')", "7"),
        ("'hello hello'.replace('he', 'we', 1)", "\"wello hello\""),
        ("' x '.trim() + 'abc'.reverse()", "\"xcba\""),
        ("'abc 123'.find('[0-9]+')", "\"123\""),
        ("'123 abc 456'.findAll('[0-9]*', 1)", "[\"123\"]"),
        ("'%s has %d items'.format(['cart', 3])", "\"cart has 3 items\""),
        ("'%.999999999f'.format([1.0])", "error: could not parse formatting clause: precision is too large"),
        ("[1, 2, 3].isSorted() && [1, 2].sum() == 3 && [3, 1].min() == 1 && [3, 1].max() == 3", "true"),
        ("[].max()", "error: max called on empty list"),
        ("[1, [2, [3]]].flatten().size() + [1, 1].distinct().size()", "4"),
        ("sets.contains([1, 2], [2]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])", "true"),
        ("duration('1h') + duration('30m') == duration('90m')", "true"),
        ("timestamp('2023-01-02T03:04:05Z').getFullYear()", "2023"),
        ("timestamp('2023-01-02T03:04:05Z').getHours('+02:00')", "5"),
        ("timestamp('2023-01-02T03:04:05Z').getHours('Europe/Berlin')", "4"),
        ("timestamp('2023-07-02T03:04:05Z').getHours('America/New_York')", "23"),
        ("timestamp('2023-01-02T00:00:00Z') + duration('24h') > timestamp('2023-01-02T12:00:00Z')", "true"),
        ("string(timestamp('2023-01-02T00:00:00Z') - timestamp('2023-01-01T00:00:00Z'))", "\"86400s\""),
        ("quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('500m').add(quantity('0.5')).isInteger()", "true"),
        ("isQuantity('1.2x') || quantity('2k').asInteger() != 2000", "false"),
        ("quantity('1e999999999').sign()", "1"),
        ("ip('10.0.0.1').family() == 4 && isIP('::1') && !isIP('x')", "true"),
        ("cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').prefixLength() == 8", "true"),
        ("url('https://example.com:80/p?q=1').getHost()", "\"example.com:80\""),
        ("semver('1.2.3').isLessThan(semver('1.10.0'))", "true"),
        ("format.dns1123Label().validate('A').hasValue()", "true"),
        ("!format.named('dns1123Label').value().validate('a').hasValue()", "true"),
        ("math.greatest(1, 5, 3) == 5 && math.ceil(1.2) == 2.0", "true"),
        ("base64.encode(b'hi') == 'aGk=' && string(base64.decode('aGk=')) == 'hi'", "true"),
        ("jsonpatch.escapeKey('a/b~c')", "\"a~1b~0c\""),
        ("lists.range(3)", "[0,1,2]"),
        ("authorizer.group('').resource('pods').namespace('n').check('create').allowed()", "true"),
        ("authorizer.requestResource.check('delete').allowed()", "false"),
        ("authorizer.serviceAccount('n', 's').group('g').resource('x').check('y').reason()", "\"g/\""),
        ("authorizer.path('/healthz').check('get').allowed()", "false"),
        (
            "unheard(1)",
            "compile: compilation failed: ERROR: <input>:1:1: undeclared reference to 'unheard' (in container '')",
        ),
        (
            "'a'.startsWith(1)",
            "compile: compilation failed: ERROR: <input>:1:5: found no matching overload for 'startsWith' applied to 'string.(int)'",
        ),
        (
            "dyn('a').startsWith(1)",
            "compile: compilation failed: ERROR: <input>:1:10: found no matching overload for 'startsWith' applied to 'dyn.(int)'",
        ),
        ("object.spec.replicas.startsWith('a')", "error: no such overload"),
    ]);
}

#[test]
fn patches_are_built() {
    check(&[
        (
            "Object{spec: Object.spec{replicas: object.spec.replicas + 1, labels: {'a': 'b'}}}",
            "{\"spec\":{\"labels\":{\"a\":\"b\"},\"replicas\":4}}",
        ),
        (
            "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: {'x': 1}}]",
            "[{\"op\":\"add\",\"path\":\"/metadata/labels/a~1b\",\"value\":{\"x\":1}}]",
        ),
        ("JSONPatch{what: 1}", "compile: compilation failed: ERROR: <input>:1:11: undefined field 'what'"),
        (
            "Thing{a: 1}",
            "compile: compilation failed: ERROR: <input>:1:6: undeclared reference to 'Thing' (in container '')",
        ),
    ]);
    let env = env();
    assert!(Expression::compile_as("Object{}", &env, &[Type::built("Object")]).is_ok());
    assert!(Expression::compile_as("[JSONPatch{op: 'test'}]", &env, &[Type::list(Type::built("JSONPatch"))]).is_ok());
    let error = Expression::compile_as("1", &env, &[Type::Bool]).unwrap_err();
    assert_eq!(error.to_string(), "must evaluate to bool");
}

#[test]
fn what_is_wrong_is_shown_in_its_place() {
    let error = Expression::compile("object.spec.x ==\n  what", &env()).unwrap_err().to_string();
    assert_eq!(
        error,
        "compilation failed: ERROR: <input>:2:3: undeclared reference to 'what' (in container '')\n |   what\n | ..^"
    );
    for (text, expected) in [
        ("", "Syntax error: mismatched input '<EOF>' expecting"),
        ("1 +", "Syntax error: mismatched input '<EOF>' expecting"),
        ("a b", "Syntax error: mismatched input 'b' expecting <EOF>"),
        ("(1", "Syntax error: mismatched input '<EOF>' expecting ')'"),
        ("'a", "token recognition error"),
        ("1 = 1", "token recognition error"),
        ("package", "reserved identifier: package"),
    ] {
        let error = Expression::compile(text, &env()).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn budgets_hold() {
    let huge: Vec<u32> = (0..2000).collect();
    let object = json!({ "list": huge });
    let budget = Budget::new(COST_PER_OBJECT_MAX);
    for text in [
        "object.list.all(a, object.list.all(b, object.list.all(c, a + b + c >= 0)))",
        "lists.range(9000000000000).size() > 0",
        "object.list.map(x, object.list).flatten().size() > 0 && object.list.map(x, object.list.map(y, y)).size() > 0",
        "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'.replace('a', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')\
         .replace('a', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa').replace('a', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')\
         .replace('a', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa').size() > 0",
    ] {
        let expression = Expression::compile(text, &env()).unwrap();
        let vars = Vars::new().json("object", &object);
        assert_eq!(expression.holds(&vars, &budget), Err(EvalError::Cost), "{text}");
    }
    assert!(budget.left() > 0 && budget.left() < COST_PER_OBJECT_MAX);
}

/// As deep as allowed, on the stack of a worker thread.
#[test]
fn depth_is_bounded() {
    let run = || {
        for (open, close) in
            [("(", ")"), ("[", "]"), ("!", ""), ("-", ""), ("{1:", "}"), ("size([", "])"), ("true?1:", "")]
        {
            for depth in [50, 120, 1000, 9000] {
                let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                if let Ok(expression) = Expression::compile(&text, &env()) {
                    let _ = expression.evaluate(&Vars::new(), &Budget::new(1_000_000));
                }
            }
        }
        for (part, end) in
            [("1+", "1"), ("1-", "1"), ("1==", "1"), ("true&&", "true"), ("object.a.", "b"), ("[[1]][0].map(x,", "1")]
        {
            for times in [100, 5000] {
                let text = format!("{}{end}", part.repeat(times));
                if let Ok(expression) = Expression::compile(&text, &env()) {
                    let _ = expression.evaluate(&Vars::new(), &Budget::new(1_000_000));
                }
            }
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn costs_are_estimated() {
    let text = |max| Size::at_most(max);
    let mut env = Env::new();
    env.declare("short", Type::String, text(10));
    env.declare("long", Type::String, Size::UNKNOWN);
    env.declare("few", Type::list(Type::String), Size::of_items(10, text(10)));
    env.declare("many", Type::list(Type::String), Size::UNKNOWN);
    let cost = |t: &str| Expression::compile(t, &env).unwrap().max_cost();
    assert!(cost("short.contains('a')") < 10);
    assert!(cost("few.all(x, x.contains('a'))") < 200);
    assert!(cost("long.contains('abc')") > 100_000);
    assert!(cost("many.all(x, x.contains('a'))") > 100_000_000);
    assert!(cost("few.all(x, few.all(y, x == y))") < 2000);
}

const WORDS: [&str; 60] = [
    "object",
    "object.spec",
    "oldObject",
    "request",
    "variables.double",
    "1",
    "2u",
    "-1",
    "9223372036854775807",
    "1.5",
    "'a'",
    "''",
    "b'x'",
    "null",
    "true",
    "[1, 2]",
    "{'a': 1}",
    "+",
    "-",
    "*",
    "/",
    "%",
    "==",
    "!=",
    "<",
    "in",
    "&&",
    "||",
    "!",
    "?",
    ":",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    ".map(x, x)",
    ".all(x, x)",
    ".size()",
    "size(",
    "has(object.spec)",
    "int(",
    "string(",
    "duration('1h')",
    "timestamp('2020-01-01T00:00:00Z')",
    "quantity('1Gi')",
    ".format([1])",
    ".sum()",
    ".sort()",
    "math.abs(",
    "math.bitShiftLeft(1, 64)",
    "ip('1.2.3.4')",
    "semver('1.0.0')",
    ".substring(1)",
    ".split('')",
    "x",
    "Object{a: 1}",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_panics(text in "\\PC{0,60}") {
        run(&text);
    }

    #[test]
    fn no_expression_panics(words in prop::collection::vec(0..WORDS.len(), 0..14)) {
        let text: String = words.iter().map(|i| WORDS[*i]).collect::<Vec<_>>().join(" ");
        run(&text);
    }

    #[test]
    fn no_call_panics(method in 0..6_usize, a in any::<i64>(), b in any::<i64>(), s in "\\PC{0,8}") {
        let s = s.replace(['\\', '\'', '\n', '\r'], "");
        let text = match method {
            0 => format!("'{s}'.substring({a}, {b})"),
            1 => format!("'{s}'.indexOf('{s}', {a}) + '{s}'.lastIndexOf('a', {b})"),
            2 => format!("[{a}, {b}].sum() + math.abs({a}) * {b}"),
            3 => format!("timestamp({a}) + duration({b}) - timestamp({b})"),
            4 => format!("math.bitShiftLeft({a}, {b}) + math.bitShiftRight({b}, {a})"),
            _ => format!("[1, 2].slice({a}, {b}).flatten({a})"),
        };
        run(&text);
    }
}

#[test]
fn sets_and_maps_of_schemas_are_compared_as_such() {
    let schema = crate::schema::Schema {
        kind: crate::schema::Kind::Array,
        list: crate::schema::ListKind::Set,
        ..Default::default()
    };
    let (a, b) = (json!([1, 2]), json!([2, 1]));
    let env = Env::new().variable("a", Type::list(Type::Int)).variable("b", Type::list(Type::Int));
    for (text, expected) in [("a == b", true), ("size(a + b) == 2", true), ("a == [2, 1]", true)] {
        let expression = Expression::compile(text, &env).unwrap();
        let vars = Vars::new().typed("a", &a, &schema).typed("b", &b, &schema);
        assert_eq!(expression.holds(&vars, &Budget::new(1000)), Ok(expected), "{text}");
    }
}
