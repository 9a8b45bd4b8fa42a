//! Calls interfaces beside those of the standard library, for the sandbox's tests: `interfaces OPERATION ARGUMENT... [-- OPERATION ...]`.
//! Built for 0.2, and as a core module that says in a section which component it is to become.

wit_bindgen::generate!({
    inline: r#"
package test:interfaces;

package wasi:config@0.2.0-rc.1 {
    interface store {
        variant error { upstream(string), io(string) }
        get: func(key: string) -> result<option<string>, error>;
        get-all: func() -> result<list<tuple<string, string>>, error>;
    }
}

package wasi:logging@0.1.0-draft {
    interface logging {
        enum level { trace, debug, info, warn, error, critical }
        log: func(level: level, context: string, message: string);
    }
}

package wasi:cli@0.2.12 {
    interface exit {
        exit: func(status: result);
        exit-with-code: func(status-code: u8);
    }
}

package wasi:keyvalue@0.2.0-draft {
    interface store {
        variant error {
            no-such-store,
            access-denied,
            other(string)
        }

        record key-response {
            keys: list<string>,
            cursor: option<u64>
        }

        open: func(identifier: string) -> result<bucket, error>;

        resource bucket {
            get: func(key: string) -> result<option<list<u8>>, error>;
            set: func(key: string, value: list<u8>) -> result<_, error>;
            delete: func(key: string) -> result<_, error>;
            exists: func(key: string) -> result<bool, error>;
            list-keys: func(cursor: option<u64>) -> result<key-response, error>;
        }
    }

    interface atomics {
        use store.{bucket, error};
        increment: func(bucket: borrow<bucket>, key: string, delta: u64) -> result<u64, error>;
    }

    interface batch {
        use store.{bucket, error};
        get-many: func(bucket: borrow<bucket>, keys: list<string>) -> result<list<option<tuple<string, list<u8>>>>, error>;
        set-many: func(bucket: borrow<bucket>, key-values: list<tuple<string, list<u8>>>) -> result<_, error>;
        delete-many: func(bucket: borrow<bucket>, keys: list<string>) -> result<_, error>;
    }
}

world interfaces {
    import wasi:config/store@0.2.0-rc.1;
    import wasi:logging/logging@0.1.0-draft;
    import wasi:cli/exit@0.2.12;
    import wasi:keyvalue/store@0.2.0-draft;
    import wasi:keyvalue/atomics@0.2.0-draft;
    import wasi:keyvalue/batch@0.2.0-draft;
}
"#,
    generate_all,
});

use wasi::{
    cli::exit::exit_with_code,
    config::store as config,
    keyvalue::{
        atomics, batch,
        store::{self, Error},
    },
    logging::logging::{Level, log},
};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    for operation in args.split(|arg| arg == "--") {
        let operation: Vec<&str> = operation.iter().map(String::as_str).collect();
        match run(&operation) {
            Ok(found) => println!("{found}"),
            Err(Error::NoSuchStore) => println!("no such store"),
            Err(Error::AccessDenied) => println!("access denied"),
            Err(Error::Other(reason)) => println!("{reason}"),
        }
    }
}

fn run(operation: &[&str]) -> Result<String, Error> {
    match *operation {
        ["config", key] => Ok(format!("{:?}", config::get(key).unwrap())),
        ["config"] => Ok(format!("{:?}", config::get_all().unwrap())),
        ["log", context, message] => {
            log(Level::Info, context, message);
            log(Level::Critical, "", message);
            Ok("logged".to_owned())
        }
        ["exit", code] => {
            exit_with_code(code.parse().unwrap_or(255));
            Ok("still here".to_owned())
        }
        _ => keyvalue(operation),
    }
}

fn keyvalue(operation: &[&str]) -> Result<String, Error> {
    let done = |()| "ok".to_owned();
    let open = |name: &str| store::open(if name == "default" { "" } else { name });
    match *operation {
        ["get", name, key] => Ok(match open(name)?.get(key)? {
            Some(value) => String::from_utf8_lossy(&value).into_owned(),
            None => "none".to_owned(),
        }),
        ["set", name, key, value] => open(name)?.set(key, value.as_bytes()).map(done),
        ["large", name, key, bytes] => {
            let value = vec![b'x'; bytes.parse().unwrap_or(0)];
            open(name)?.set(if key == "long" { "k".repeat(2000) } else { key.to_owned() }.as_str(), &value).map(done)
        }
        ["delete", name, key] => open(name)?.delete(key).map(done),
        ["exists", name, key] => Ok(open(name)?.exists(key)?.to_string()),
        ["increment", name, key, by] => {
            Ok(atomics::increment(&open(name)?, key, by.parse().unwrap_or(0))?.to_string())
        }
        ["fill", name, count] => {
            let all: Vec<_> =
                (0..count.parse().unwrap_or(0)).map(|n: u32| (format!("key-{n:05}"), n.to_string().into_bytes())).collect();
            batch::set_many(&open(name)?, &all).map(done)
        }
        ["list", name] => {
            let bucket = open(name)?;
            let (mut pages, mut keys, mut cursor) = (0, Vec::new(), None);
            loop {
                let page = bucket.list_keys(cursor)?;
                pages += 1;
                keys.extend(page.keys);
                cursor = page.cursor;
                if cursor.is_none() {
                    let sorted = keys.is_sorted();
                    return Ok(format!("{pages} pages, {} keys, sorted: {sorted}", keys.len()));
                }
            }
        }
        ["many", name, ref keys @ ..] => {
            let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            let bucket = open(name)?;
            let found = batch::get_many(&bucket, &keys)?;
            batch::delete_many(&bucket, &keys)?;
            let shown = found.into_iter().map(|it| it.map(|(key, value)| format!("{key}={}", String::from_utf8_lossy(&value))));
            Ok(shown.map(|it| it.unwrap_or_else(|| "none".to_owned())).collect::<Vec<_>>().join(" "))
        }
        _ => Ok(format!("unknown operation {operation:?}")),
    }
}
