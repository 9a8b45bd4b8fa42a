//! A `wasi:cli` 0.3 command for the sandbox's tests.

use wasip3::filesystem::{
    preopens::get_directories,
    types::{DescriptorFlags, OpenFlags, PathFlags},
};

wasip3::cli::command::export!(Guest);

struct Guest;

impl wasip3::exports::cli::run::Guest for Guest {
    async fn run() -> Result<(), ()> {
        let args = wasip3::cli::environment::get_arguments();
        if args.get(1).is_some_and(|arg| arg == "fail") {
            return Err(());
        }
        if let [_, verb, path] = &args[..]
            && verb == "read"
        {
            return print(read(path).await).await;
        }
        if args.get(1).is_some_and(|verb| verb == "hold") {
            return print(hold().await).await;
        }
        if args.get(1).is_some_and(|verb| verb == "list") {
            return print(list().await).await;
        }
        print(format!("{args:?}\n").into_bytes()).await
    }
}

/// What a file holds, below the first preopened folder; or the error's code.
async fn read(path: &str) -> Vec<u8> {
    let folders = get_directories();
    let Some((folder, name)) = folders.first() else { return b"no folder\n".to_vec() };
    let path = path.trim_start_matches(name.as_str()).trim_start_matches('/').to_owned();
    let opened = folder.open_at(PathFlags::SYMLINK_FOLLOW, path, OpenFlags::empty(), DescriptorFlags::READ).await;
    match opened {
        Ok(file) => {
            let (bytes, _) = file.read_via_stream(0);
            bytes.collect().await
        }
        Err(code) => format!("{code:?}\n").into_bytes(),
    }
}

/// Opens the first preopened folder again and again; tells how often, and the error's code.
async fn hold() -> Vec<u8> {
    let folders = get_directories();
    let mut held = Vec::new();
    loop {
        let flags = (PathFlags::empty(), OpenFlags::DIRECTORY, DescriptorFlags::READ);
        match folders[0].0.open_at(flags.0, ".".to_owned(), flags.1, flags.2).await {
            Ok(file) => held.push(file),
            Err(code) => return format!("{} {code:?}", held.len()).into_bytes(),
        }
    }
}

/// What is in the first preopened folder, while six hundred others have been asked for; or the error's code.
async fn list() -> Vec<u8> {
    let folders = get_directories();
    let folder = &folders[0].0;
    let _others: Vec<_> = (0..600).map(|_| folder.read_directory()).collect();
    let (entries, result) = folder.read_directory();
    let mut found: Vec<_> =
        entries.collect().await.into_iter().map(|entry| format!("{} {:?}", entry.name, entry.type_)).collect();
    found.sort();
    match result.await {
        Ok(()) => found.join("\n").into_bytes(),
        Err(code) => format!("{code:?}").into_bytes(),
    }
}

async fn print(text: Vec<u8>) -> Result<(), ()> {
    let (mut tx, rx) = wasip3::wit_stream::new();
    let (written, ()) = futures::join!(async { wasip3::cli::stdout::write_via_stream(rx).await }, async {
        tx.write_all(text).await;
        drop(tx);
    });
    written.map_err(|_| ())
}
