//! A command for the sandbox's tests, built for preview 1 and for 0.2: `command VERB [N]`.

use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = args.get(2).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    match args.get(1).map_or("", String::as_str) {
        "env" => println!("{args:?} {:?}", std::env::vars().collect::<Vec<_>>()),
        "exit" => std::process::exit(number as i32),
        "panic" => panic!("asked to"),
        "spin" => spin(Duration::from_millis(number)),
        "chatter" => chatter(Duration::from_millis(number)),
        "sleep" => std::thread::sleep(Duration::from_millis(number)),
        "alloc" => alloc(number),
        _ => eprintln!("nothing asked"),
    }
}

fn spin(time: Duration) {
    let start = Instant::now();
    let mut x = 1_u64;
    while start.elapsed() < time {
        for _ in 0..10_000 {
            x = std::hint::black_box(x.wrapping_mul(6364136223846793005).wrapping_add(1));
        }
    }
}

/// Spends its time in calls to the host.
fn chatter(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {}
}

fn alloc(mb: u64) {
    let mut blocks = Vec::new();
    for _ in 0..mb {
        blocks.push(vec![1_u8; 1 << 20]);
    }
    println!("{}", std::hint::black_box(blocks).len());
}
