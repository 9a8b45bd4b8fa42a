//! The commands that `kubectl exec` finds in every container: files, text, archives, and a shell that runs them.
//!
//! One program, which is by its name what it is called, as busybox is. WASI starts no processes: the shell runs these
//! commands one after the other, and a pipe is a buffer between them.
//!
//! Not here: whatever needs a process, a signal or a socket. Programs that have sockets [`add`] commands of their own, which
//! the shell finds too.

mod archive;
mod fields;
mod files;
mod find;
mod host;
pub mod io;
mod list;
mod shell;
mod system;
mod text;

use std::cell::Cell;

use crate::io::Io;

/// What a command comes to: its exit code.
pub type Code = i32;

/// A command: arguments without its name, and its streams.
pub type Command = fn(&[String], &mut Io) -> Code;

/// Commands by their names.
pub type Commands = &'static [(&'static str, Command)];

thread_local! {
    static ADDED: Cell<Commands> = const { Cell::new(&[]) };
}

/// Adds commands to those that are here.
pub fn add(commands: Commands) {
    ADDED.set(commands);
}

/// Every command by its name, in the order of names.
const COMMANDS: Commands = &[
    ("[", system::test),
    ("awk", fields::awk),
    ("base64", fields::base64),
    ("basename", text::basename),
    ("cat", text::cat),
    ("chmod", system::nothing),
    ("chown", system::nothing),
    ("cmp", fields::cmp),
    ("cp", files::cp),
    ("cut", fields::cut),
    ("date", system::date),
    ("dirname", text::dirname),
    ("du", files::du),
    ("echo", text::echo),
    ("env", system::env),
    ("expr", fields::expr),
    ("false", |_, _| 1),
    ("find", find::find),
    ("grep", text::grep),
    ("head", text::head),
    ("hostname", system::hostname),
    ("id", system::id),
    ("ln", files::ln),
    ("ls", list::ls),
    ("mkdir", files::mkdir),
    ("mktemp", files::mktemp),
    ("mv", files::mv),
    ("printenv", system::printenv),
    ("printf", text::printf),
    ("pwd", system::pwd),
    ("readlink", files::readlink),
    ("rm", files::rm),
    ("rmdir", files::rmdir),
    ("sed", fields::sed),
    ("seq", text::seq),
    ("sh", shell::sh),
    ("sleep", system::sleep),
    ("sort", text::sort),
    ("stat", files::stat),
    ("sync", system::nothing),
    ("tail", text::tail),
    ("tar", archive::tar),
    ("tee", text::tee),
    ("test", system::test),
    ("touch", files::touch),
    ("tr", fields::tr),
    ("true", |_, _| 0),
    ("uname", system::uname),
    ("uniq", text::uniq),
    ("wc", text::wc),
    ("whoami", system::whoami),
    ("xargs", fields::xargs),
    ("yes", text::yes),
];

/// A command by its name.
pub fn find_command(name: &str) -> Option<Command> {
    let name = match name {
        // All names of one shell.
        "bash" | "ash" | "dash" => "sh",
        "[[" => "[",
        name => name,
    };
    ADDED.get().iter().chain(COMMANDS).find(|(known, _)| *known == name).map(|(_, command)| *command)
}

/// The names of all commands, in their order.
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = ADDED.get().iter().chain(COMMANDS).map(|(name, _)| *name).collect();
    names.sort_unstable();
    names
}

/// What a program is called: the last word of its path.
pub fn program_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or_default().trim_end_matches(".wasm")
}

/// Runs the command that the program is called like, or that its first argument names when it is called `tools` or
/// `busybox`. `None`: there is no such command.
pub fn run(program: &str, mut args: Vec<String>) -> Option<Code> {
    let mut name = program_name(program).to_owned();
    if matches!(name.as_str(), "tools" | "busybox") {
        if args.is_empty() {
            println!("Commands: {}", names().join(", "));
            return Some(0);
        }
        name = args.remove(0);
    }
    // WASI tells a program where it starts by nothing but this.
    if let Some(dir) = std::env::var_os("PWD").filter(|dir| !dir.is_empty()) {
        // Where it cannot be, it is where it was.
        let _moved = std::env::set_current_dir(dir);
    }
    find_command(&name).map(|command| command(&args, &mut Io::of_process()))
}

/// A moment in UTC as `date` formats it. `seconds`: since 1970.
pub fn moment(seconds: i64, format: &str) -> String {
    system::Date::of(seconds).format(format)
}

/// Bytes as base64.
pub fn base64(bytes: &[u8]) -> String {
    fields::encode(bytes)
}

/// What is said of a program that is not there.
pub fn not_found(program: &str) -> String {
    format!(
        "OCI runtime exec failed: exec failed: unable to start container process: exec: \"{program}\": executable file not found in $PATH"
    )
}
