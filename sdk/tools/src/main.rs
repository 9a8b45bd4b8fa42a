//! The commands that `kubectl exec` finds in every container: files, text, archives, and a shell that runs them.
//!
//! One program, which is by its name what it is called, as busybox is. WASI starts no processes: the shell runs these
//! commands one after the other, and a pipe is a buffer between them.
//!
//! Not here: whatever needs a process, a signal or a socket.

mod archive;
mod files;
mod find;
mod host;
mod io;
mod list;
mod shell;
mod system;
mod text;

use std::process::ExitCode;

use crate::io::Io;

/// What a command comes to: its exit code.
type Code = i32;

/// A command: arguments without its name, and its streams.
type Command = fn(&[String], &mut Io) -> Code;

/// Every command by its name, in the order of names.
const COMMANDS: &[(&str, Command)] = &[
    ("[", system::test),
    ("basename", text::basename),
    ("cat", text::cat),
    ("cp", files::cp),
    ("date", system::date),
    ("dirname", text::dirname),
    ("du", files::du),
    ("echo", text::echo),
    ("env", system::env),
    ("false", |_, _| 1),
    ("find", find::find),
    ("grep", text::grep),
    ("head", text::head),
    ("hostname", system::hostname),
    ("id", system::id),
    ("ln", files::ln),
    ("ls", list::ls),
    ("mkdir", files::mkdir),
    ("mv", files::mv),
    ("printenv", system::printenv),
    ("printf", text::printf),
    ("pwd", system::pwd),
    ("readlink", files::readlink),
    ("rm", files::rm),
    ("rmdir", files::rmdir),
    ("seq", text::seq),
    ("sh", shell::sh),
    ("sleep", system::sleep),
    ("sort", text::sort),
    ("stat", files::stat),
    ("tail", text::tail),
    ("tar", archive::tar),
    ("tee", text::tee),
    ("test", system::test),
    ("touch", files::touch),
    ("true", |_, _| 0),
    ("uname", system::uname),
    ("uniq", text::uniq),
    ("wc", text::wc),
    ("whoami", system::whoami),
    ("yes", text::yes),
];

/// A command by its name.
fn find_command(name: &str) -> Option<Command> {
    // Both names of one shell.
    let name = if matches!(name, "bash" | "ash") { "sh" } else { name };
    COMMANDS.iter().find(|(known, _)| *known == name).map(|(_, command)| *command)
}

fn main() -> ExitCode {
    let mut args = std::env::args();
    let program = args.next().unwrap_or_default();
    let mut args: Vec<String> = args.collect();
    let mut name = program.rsplit('/').next().unwrap_or_default().trim_end_matches(".wasm").to_owned();
    if matches!(name.as_str(), "tools" | "busybox") {
        if args.is_empty() {
            let names: Vec<_> = COMMANDS.iter().map(|(name, _)| *name).collect();
            println!("Commands: {}", names.join(", "));
            return ExitCode::SUCCESS;
        }
        name = args.remove(0);
    }
    // WASI tells a program where it starts by nothing but this.
    if let Some(dir) = std::env::var_os("PWD").filter(|dir| !dir.is_empty()) {
        // Where it cannot be, it is where it was.
        let _moved = std::env::set_current_dir(dir);
    }
    let Some(command) = find_command(&name) else {
        eprintln!(
            "OCI runtime exec failed: exec failed: unable to start container process: exec: \"{program}\": executable file not found in $PATH"
        );
        return ExitCode::from(127);
    };
    let code = command(&args, &mut Io::of_process());
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))
}
