//! A `wasi:cli` 0.3 command for the sandbox's tests.

wasip3::cli::command::export!(Guest);

struct Guest;

impl wasip3::exports::cli::run::Guest for Guest {
    async fn run() -> Result<(), ()> {
        let args = wasip3::cli::environment::get_arguments();
        if args.get(1).is_some_and(|arg| arg == "fail") {
            return Err(());
        }
        let (mut tx, rx) = wasip3::wit_stream::new();
        let (written, ()) = futures::join!(async { wasip3::cli::stdout::write_via_stream(rx).await }, async {
            tx.write_all(format!("{args:?}\n").into_bytes()).await;
            drop(tx);
        });
        written.map_err(|_| ())
    }
}
