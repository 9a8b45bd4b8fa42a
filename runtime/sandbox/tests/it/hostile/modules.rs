//! Modules that mean harm to whoever compiles them.

/// Functions that the compiler has to look at for long: many locals that are all alive at every turn of a large switch.
pub fn slow(functions: usize, arms: usize) -> String {
    let locals = "(local i64) ".repeat(800);
    let mut body = String::new();
    for i in 0..800 {
        body.push_str(&format!(
            "(local.set {} (i64.add (local.get {}) (local.get {})))",
            (i * 7) % 800,
            i,
            (i + 1) % 800
        ));
    }
    let opens = "(block ".repeat(arms);
    let table: String = (0..arms).map(|i| format!("{i} ")).collect();
    let closes: String = (0..arms).map(|i| format!(") (local.set {} (i64.const {i}))", i % 800)).collect();
    let function = format!(
        "(func (export \"\") {locals} (loop {opens} (br_table {table} (i32.wrap_i64 (local.get 0))) {closes} {body} (br_if 0 (i32.wrap_i64 (local.get 1)))))"
    );
    let functions = function.replace("(export \"\")", "").repeat(functions);
    format!("(module {functions} (func (export \"_start\")))")
}

fn nested(depth: usize) -> String {
    format!("(module (func (export \"_start\") {} {}))", "block ".repeat(depth), "end ".repeat(depth))
}

fn leb(mut n: u32, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn section(id: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(id);
    leb(content.len() as u32, out);
    out.extend(content);
}

/// A binary of `count` functions with one body each.
fn functions(count: u32, body: &[u8]) -> Vec<u8> {
    let mut wasm = b"\0asm\x01\0\0\0".to_vec();
    section(1, &[1, 0x60, 0, 0], &mut wasm);
    let mut types = Vec::new();
    leb(count, &mut types);
    types.extend(std::iter::repeat_n(0, count as usize));
    section(3, &types, &mut wasm);
    section(7, b"\x01\x06_start\0\0", &mut wasm);
    let mut code = Vec::new();
    leb(count, &mut code);
    for _ in 0..count {
        leb(body.len() as u32, &mut code);
        code.extend(body);
    }
    section(10, &code, &mut wasm);
    wasm
}

/// Past the bound on functions.
pub fn million_functions() -> Vec<u8> {
    functions(1_000_000, &[0, 0x0b])
}

/// As many functions as there may be, each with locals that only the compiler sees.
pub fn many_locals() -> Vec<u8> {
    functions(300_000, &[1, 0xd0, 0x86, 0x03, 0x7e, 0x0b])
}

/// One function of 7 MB.
pub fn gigantic_function() -> Vec<u8> {
    let mut body = vec![0];
    body.extend(std::iter::repeat_n(0x01, 7_000_000));
    body.push(0x0b);
    functions(1, &body)
}

/// Blocks within blocks.
pub fn nested_blocks() -> Vec<u8> {
    wat::parse_str(nested(100_000)).unwrap()
}

/// Large switches over many locals.
pub fn switches() -> Vec<u8> {
    wat::parse_str(slow(400, 1500)).unwrap()
}

/// A file as large as files may be, of which next to nothing is code.
pub fn padding() -> Vec<u8> {
    let mut wasm = functions(1, &[0, 0x0b]);
    section(0, &[&[1, b'x'][..], &vec![0; (256 << 20) - 100]].concat(), &mut wasm);
    wasm
}
