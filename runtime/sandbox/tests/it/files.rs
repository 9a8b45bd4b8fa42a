//! Mounts: what guests of both worlds do with them, and that nothing leads out.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use podium_sandbox::{ContainerSpec, Ending, Mount, Sandbox, SandboxConfig, StartError};
use tempfile::TempDir;

use crate::support::{self, COMMAND_P3, FILES_P1, FILES_P2, HELLO_C, load, sandbox, spec};

const BOTH: [&[u8]; 2] = [FILES_P1, FILES_P2];

fn mount(host: impl Into<PathBuf>, guest: &str, read_only: bool) -> Mount {
    Mount { guest_path: guest.to_owned(), source: Arc::new(host.into()), sub_path: None, read_only }
}

fn sub(host: impl Into<PathBuf>, path: &str, guest: &str, read_only: bool) -> Mount {
    Mount { sub_path: Some(path.into()), ..mount(host, guest, read_only) }
}

/// Runs operations, one per string, its words apart by blanks; answers with what each printed.
async fn run(
    sandbox: &Sandbox,
    wasm: &'static [u8],
    operations: &[&str],
    change: impl Fn(&mut ContainerSpec),
) -> Vec<String> {
    let image = load(sandbox, wasm).await;
    let mut args = vec!["files"];
    for (index, operation) in operations.iter().enumerate() {
        args.extend((index > 0).then_some("--"));
        args.extend(operation.split(' '));
    }
    let (mut spec, logs) = spec(&args);
    change(&mut spec);
    let command = sandbox.command(&image, spec).unwrap();
    assert_eq!(command.wait().await, Ending::Finished { code: 0 }, "{:?}", logs.stderr.lock());
    let stdout = logs.stdout.lock();
    stdout.lines().map(str::to_owned).collect()
}

/// A table of operations and what they print, run by guests of both worlds, each with a folder of its own.
async fn check(make: impl Fn(&Path) -> Vec<Mount>, cases: &[(&str, &str)]) {
    let sandbox = sandbox();
    for wasm in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let mounts = make(dir.path());
        let operations: Vec<_> = cases.iter().map(|(operation, _)| *operation).collect();
        let printed = run(&sandbox, wasm, &operations, |spec| spec.mounts = mounts.clone()).await;
        assert_eq!(printed.len(), cases.len(), "{printed:?}");
        for ((operation, wanted), printed) in cases.iter().zip(printed) {
            assert!(wanted.split('|').any(|wanted| wanted == printed), "{operation}: {printed}, wanted {wanted}");
        }
    }
}

fn folder(path: PathBuf) -> PathBuf {
    fs::create_dir_all(&path).unwrap();
    path
}

fn file(path: PathBuf, content: &str) -> PathBuf {
    folder(path.parent().unwrap().to_owned());
    fs::write(&path, content).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_read_and_written() {
    let _turn = support::shared().await;
    let make = |dir: &Path| {
        file(dir.join("rw/found"), "there before");
        vec![mount(dir.join("rw"), "/data", false)]
    };
    check(
        make,
        &[
            ("read /data/found", "there before"),
            ("write /data/new hello", "ok"),
            ("append /data/new ,you", "ok"),
            ("read /data/new", "hello,you"),
            ("stat /data/new", "file 9"),
            ("mkdir /data/sub", "ok"),
            ("rename /data/new /data/sub/newer", "ok"),
            ("list /data", "found sub"),
            ("list /data/sub", "newer"),
            ("rmdir /data/sub", "DirectoryNotEmpty|Uncategorized"),
            ("link /data/sub/newer /data/hard", "ok"),
            ("read /data/hard", "hello,you"),
            ("symlink sub/newer /data/soft", "ok"),
            ("read /data/soft", "hello,you"),
            ("readlink /data/soft", "sub/newer"),
            ("remove /data/sub/newer", "ok"),
            ("read /data/soft", "NotFound"),
            ("rmdir /data/sub", "ok"),
            ("read /etc/passwd", "NotFound"),
            ("list /", "NotFound"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_folder_stays_as_it_is() {
    let _turn = support::shared().await;
    let refused = "PermissionDenied|ReadOnlyFilesystem";
    let make = |dir: &Path| {
        file(dir.join("ro/found"), "as it was");
        vec![mount(dir.join("ro"), "/data", true), mount(folder(dir.join("rw")), "/rw", false)]
    };
    check(
        make,
        &[
            ("read /data/found", "as it was"),
            ("write /data/found changed", refused),
            ("append /data/found more", refused),
            ("write /data/new x", refused),
            ("remove /data/found", refused),
            ("mkdir /data/sub", refused),
            ("rename /data/found /data/other", refused),
            ("rename /data/found /rw/found", refused),
            ("link /data/found /rw/found", refused),
            ("symlink found /data/soft", refused),
            ("read /data/found", "as it was"),
            ("list /data", "found"),
            ("list /rw", ""),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leads_out() {
    let _turn = support::shared().await;
    let refused = "PermissionDenied|NotFound|Other|Uncategorized|FilesystemLoop|InvalidInput|CrossesDevices";
    let make = |dir: &Path| {
        file(dir.join("secret"), "secret");
        let data = folder(dir.join("data"));
        folder(data.join("sub"));
        symlink("/", data.join("root")).unwrap();
        symlink("/etc/passwd", data.join("absolute")).unwrap();
        symlink("../secret", data.join("relative")).unwrap();
        symlink("..", data.join("up")).unwrap();
        symlink("/proc/self/root", data.join("proc")).unwrap();
        symlink("loop", data.join("loop")).unwrap();
        symlink(dir.join("data/sub"), data.join("own")).unwrap();
        vec![mount(data, "/data", false), mount(folder(dir.join("other")), "/other", false)]
    };
    check(
        make,
        &[
            ("read /data/../secret", refused),
            ("read /data/sub/../../secret", refused),
            ("read /data/../../../../../../../../etc/passwd", refused),
            ("read /data/absolute", refused),
            ("read /data/relative", refused),
            ("read /data/up/secret", refused),
            ("read /data/root/etc/passwd", refused),
            ("list /data/root", refused),
            ("list /data/up", refused),
            ("list /data/proc", refused),
            ("read /data/loop", refused),
            ("list /data/own", refused),
            ("stat /data/absolute", refused),
            ("lstat /data/absolute", "link"),
            ("write /data/relative overwritten", refused),
            ("write /data/up/new x", refused),
            ("mkdir /data/up/new", refused),
            ("remove /data/up/secret", refused),
            ("rename /data/up/secret /data/mine", refused),
            ("rename /data/sub /data/up/sub", refused),
            ("link /data/up/secret /data/mine", refused),
            ("link /data/sub/../../secret /data/mine", refused),
            // A link to somewhere absolute is not made; one that leads up is made and leads nowhere.
            ("symlink /etc/passwd /data/made", "PermissionDenied|ok"),
            ("read /data/made", refused),
            ("symlink ../secret /data/made2", "PermissionDenied|ok"),
            ("read /data/made2", refused),
            ("symlink ../../secret /data/sub/made3", "PermissionDenied|ok"),
            ("read /data/sub/made3", refused),
            // A link that is moved to where it would lead out.
            ("symlink ../within /data/sub/moved", "ok"),
            ("write /data/within fine", "ok"),
            ("read /data/sub/moved", "fine"),
            ("rename /data/sub/moved /data/moved", "ok"),
            ("read /data/moved", refused),
            // From one mount to the other: two folders, one filesystem.
            ("write /other/mine x", "ok"),
            ("rename /other/mine /data/mine", "ok"),
            ("read /data/mine", "x"),
            ("link /data/absolute /other/absolute", "ok"),
            ("read /other/absolute", refused),
            ("read /proc/self/environ", refused),
            ("read /dev/null", refused),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_stay_inside_work() {
    let _turn = support::shared().await;
    // As the kubelet writes ConfigMaps: a folder for each version, and a link that is swapped.
    let make = |dir: &Path| {
        let volume = dir.join("volume");
        file(volume.join("..2026_11_21/app.conf"), "one");
        symlink("..2026_11_21", volume.join("..data")).unwrap();
        symlink("..data/app.conf", volume.join("app.conf")).unwrap();
        vec![
            mount(volume.clone(), "/config", true),
            sub(volume.clone(), "app.conf", "/etc/app.conf", true),
            sub(volume, "..data", "/sub", true),
        ]
    };
    check(
        make,
        &[
            ("read /config/app.conf", "one"),
            ("read /config/..data/app.conf", "one"),
            ("stat /config/app.conf", "file 3"),
            ("read /etc/app.conf", "one"),
            ("list /etc", "app.conf"),
            ("read /sub/app.conf", "one"),
            ("write /etc/app.conf x", "PermissionDenied|ReadOnlyFilesystem"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_a_volume_is_seen() {
    let _turn = support::shared().await;
    let dir = tempfile::tempdir().unwrap();
    file(dir.path().join("..1/key"), "one");
    file(dir.path().join("..2/key"), "two");
    symlink("..1", dir.path().join("..data")).unwrap();
    symlink("..data/key", dir.path().join("key")).unwrap();
    let sandbox = sandbox();
    for wanted in ["one", "two"] {
        let mounts = vec![mount(dir.path(), "/config", true)];
        let printed = run(&sandbox, FILES_P2, &["read /config/key"], |spec| spec.mounts = mounts.clone()).await;
        assert_eq!(printed, [wanted]);
        symlink("..2", dir.path().join("..tmp")).unwrap();
        fs::rename(dir.path().join("..tmp"), dir.path().join("..data")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_mounts_and_single_files() {
    let _turn = support::shared().await;
    let make = |dir: &Path| {
        file(dir.join("config/app.conf"), "settings");
        file(dir.join("cache/hot"), "cached");
        file(dir.join("config/other"), "other");
        vec![
            mount(folder(dir.join("data")), "/data", false),
            mount(dir.join("cache"), "/data/cache/", false),
            mount(dir.join("config/app.conf"), "/etc/app.conf", true),
            sub(dir.join("config"), "other", "/etc/other.conf", true),
            mount(dir.join("config/other"), "/state/file", false),
            sub(dir.join("data"), "made/for/this", "/sub", false),
        ]
    };
    check(
        make,
        &[
            ("write /data/x outer", "ok"),
            ("list /data", "cache made x"),
            ("list /data/cache", "hot"),
            ("read /data/cache/hot", "cached"),
            ("write /data/cache/y inner", "ok"),
            ("list /etc", "app.conf other.conf"),
            ("read /etc/app.conf", "settings"),
            ("read /etc/other.conf", "other"),
            ("append /state/file ,more", "ok"),
            ("read /etc/other.conf", "other,more"),
            ("write /sub/z deep", "ok"),
            ("read /data/made/for/this/z", "deep"),
            ("rename /data/x /data/cache/x", "ok"),
            ("list /data/cache", "hot x y"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relative_paths_begin_in_the_working_directory() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    for wasm in BOTH {
        let dir = tempfile::tempdir().unwrap();
        file(dir.path().join("work/here"), "found");
        let operations = ["read here", "write made x", "read /data/work/made", "read ./here", "read ../../secret"];
        let printed = run(&sandbox, wasm, &operations, |spec| {
            spec.mounts = vec![mount(dir.path(), "/data", false)];
            spec.working_dir = Some("/data/work".to_owned());
        });
        let printed = printed.await;
        assert_eq!(printed[..4], ["found", "ok", "x", "found"], "{} bytes", wasm.len());
        assert!(["NotFound", "PermissionDenied"].contains(&&*printed[4]), "{printed:?}");
        // One that lies in no mount is no reason not to start.
        let printed = run(&sandbox, wasm, &["read here"], |spec| {
            spec.mounts = vec![mount(dir.path(), "/data", false)];
            spec.working_dir = Some("/app".to_owned());
        });
        assert_eq!(printed.await, ["NotFound"]);
    }
}

fn refusal(sandbox: &Sandbox, image: &Arc<podium_sandbox::Image>, mounts: Vec<Mount>) -> String {
    let spec = ContainerSpec { mounts, ..spec(&["files", "list", "/data"]).0 };
    let error = sandbox.command(image, spec).unwrap_err();
    assert!(matches!(error, StartError::Mount { .. }), "{error}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_that_cannot_be_say_why() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    let image = load(&sandbox, FILES_P2).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let text = file(path.join("file"), "text");
    symlink("/etc", path.join("out")).unwrap();
    let gone = path.join("gone");
    let cases = [
        (vec![mount(&gone, "/data", false)], format!("cannot mount /data: {}: No such file", gone.display())),
        (vec![mount(path, "data", false)], "cannot mount data: its path must be absolute".into()),
        (vec![mount(path, "/data/../etc", false)], "its path must not contain '..'".into()),
        (vec![mount(path, "/data", false), mount(path, "/data/", true)], "another mount has the same path".into()),
        (vec![sub(path, "out", "/data", false)], format!("out in {}: ", path.display())),
        (vec![sub(path, "../x", "/data", false)], "../x in ".into()),
        (vec![sub(path, "/etc", "/data", false)], "/etc in ".into()),
        (
            vec![mount(path, "/data", false), mount(&text, "/data/file", false)],
            "single files cannot be mounted into a folder that is a mount itself".into(),
        ),
        (
            vec![mount(&text, "/etc/a", false), mount(&text, "/etc/b", true)],
            "single files in /etc must be read-only all, or none".into(),
        ),
        (vec![mount("/dev/null", "/etc/null", true)], "neither a folder nor a regular file".into()),
    ];
    for (mounts, wanted) in cases {
        let error = refusal(&sandbox, &image, mounts);
        assert!(error.contains(&wanted), "{error}, wanted {wanted}");
    }
}

/// What a private folder holds goes with its container.
#[tokio::test(flavor = "multi_thread")]
async fn private_folders_are_taken_away() {
    let _turn = support::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let scratch = folder(dir.path().join("scratch"));
    // What a killed process has left, as it left it.
    let old = file(scratch.join("podium-file-old/file"), "old");
    fs::set_permissions(old.parent().unwrap(), fs::Permissions::from_mode(0o500)).unwrap();
    let config = SandboxConfig { scratch_dir: Some(scratch.clone()), instances_max: 16, ..SandboxConfig::default() };
    let sandbox = Sandbox::new(config).unwrap();
    assert!(!old.exists());
    let mounts = vec![mount(file(dir.path().join("file"), "text"), "/etc/file", true)];
    let printed = run(&sandbox, FILES_P1, &["read /etc/file"], |spec| spec.mounts = mounts.clone()).await;
    assert_eq!(printed, ["text"]);
    let left = || fs::read_dir(&scratch).unwrap().count();
    let until = Instant::now() + Duration::from_secs(60);
    while left() > 0 {
        assert!(Instant::now() < until, "{} left", left());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A thread of the host swaps a folder and a link that leads out, as fast as it can, while the guest opens what is below.
struct Swapper {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Swapper {
    fn start(dir: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, data) = (stop.clone(), dir.join("data"));
        let thread = std::thread::spawn(move || {
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            while !stopped.load(Ordering::Relaxed) {
                let (one, other) = (data.join("swapped"), data.join("link"));
                rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, exchange).unwrap();
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn swapped() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    file(dir.path().join("outside/file"), "secret");
    file(dir.path().join("data/swapped/file"), "inside");
    symlink("../outside", dir.path().join("data/link")).unwrap();
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn no_race_of_links_leads_out() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    for wasm in BOTH {
        let dir = swapped();
        let _swapper = Swapper::start(dir.path());
        let mounts = vec![mount(dir.path().join("data"), "/data", false)];
        let printed = run(&sandbox, wasm, &["race /data/swapped/file 3000"], |spec| spec.mounts = mounts.clone()).await;
        assert_eq!(printed, ["error inside"], "both were met, and the link led nowhere");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_race_leads_a_sub_path_out() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    let image = load(&sandbox, FILES_P2).await;
    let dir = swapped();
    let _swapper = Swapper::start(dir.path());
    let (mut inside, mut refused) = (0, 0);
    while inside < 30 || refused < 30 {
        let (mut spec, logs) = spec(&["files", "read", "/sub/file"]);
        spec.mounts = vec![sub(dir.path().join("data"), "swapped", "/sub", true)];
        let Ok(command) = sandbox.command(&image, spec) else {
            refused += 1;
            continue;
        };
        // It may be swapped again before the guest looks; then the guest ends, or finds nothing.
        command.wait().await;
        let printed = logs.stdout.lock().clone();
        assert!(["inside\n", "", "NotFound\n"].contains(&&*printed), "{printed}");
        inside += u32::from(printed == "inside\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_are_there_in_0_3() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    let dir = tempfile::tempdir().unwrap();
    file(dir.path().join("data/text"), "read in 0.3");
    file(dir.path().join("secret"), "secret");
    symlink("../secret", dir.path().join("data/out")).unwrap();
    symlink("text", dir.path().join("data/in")).unwrap();
    let image = load(&sandbox, COMMAND_P3).await;
    let cases = [
        ("/data/text", "read in 0.3"),
        ("/data/in", "read in 0.3"),
        ("/data/out", "ErrorCode::NotPermitted\n"),
        ("/data/../secret", "ErrorCode::NotPermitted\n"),
        ("/data/none", "ErrorCode::NoEntry\n"),
    ];
    for (path, wanted) in cases {
        let (mut spec, logs) = spec(&["command", "read", path]);
        spec.mounts = vec![mount(dir.path().join("data"), "/data", true)];
        let ending = sandbox.command(&image, spec).unwrap().wait().await;
        assert_eq!((ending, logs.stdout.lock().as_str()), (Ending::Finished { code: 0 }, wanted), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_in_c_runs() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    let dir = tempfile::tempdir().unwrap();
    file(dir.path().join("line"), "from a file");
    let image = load(&sandbox, HELLO_C).await;
    let (mut spec, logs) = spec(&["hello", "/data/line"]);
    spec.mounts = vec![mount(dir.path(), "/data", true)];
    spec.stdin = Some(podium_sandbox::Stdin::new(&b"typed"[..]));
    let ending = sandbox.command(&image, spec).unwrap().wait().await;
    assert_eq!(*logs.stdout.lock(), "2 arguments, hello there\n/data/line: from a file\ntyped");
    assert_eq!(ending, Ending::Finished { code: 7 });
}

/// Each open file is a descriptor of the process that all guests share.
#[tokio::test(flavor = "multi_thread")]
async fn open_files_have_a_bound() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    let dir = tempfile::tempdir().unwrap();
    file(dir.path().join("text"), "text");
    let mounts = vec![mount(dir.path(), "/data", false)];
    let image = load(&sandbox, COMMAND_P3).await;
    let (mut of_p3, logs) = spec(&["command", "hold"]);
    of_p3.mounts = mounts.clone();
    assert_eq!(sandbox.command(&image, of_p3).unwrap().wait().await, Ending::Finished { code: 0 });
    assert_eq!(*logs.stdout.lock(), "1023 ErrorCode::InsufficientMemory", "with the mount itself 1,024");

    // In 0.2 this guest's libc has a bound of its own, which is lower.
    let operations = ["hold /data/text 120", "read /data/text"];
    let printed = run(&sandbox, FILES_P2, &operations, |spec| spec.mounts = mounts.clone()).await;
    assert_eq!(printed, ["120", "text"]);

    let operations = ["hold /data/text 5000", "read /data/text"];
    let printed = run(&sandbox, FILES_P1, &operations, |spec| spec.mounts = mounts.clone()).await;
    assert_eq!(
        printed,
        ["1020 No file descriptors available (os error 33)", "text"],
        "with the mount and three streams 1,024"
    );
}

/// A guest that begins to list a folder six hundred times and reads one of these lists keeps nobody from reading, itself included: no
/// thread that blocks waits for it.
#[test]
fn lists_that_nobody_reads_are_in_nobodys_way() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.max_blocking_threads(8).enable_all().build().unwrap();
    let listed = runtime.block_on(async {
        let _turn = support::shared().await;
        let sandbox = sandbox();
        let dir = tempfile::tempdir().unwrap();
        file(dir.path().join("sub/file"), "");
        file(dir.path().join("text"), "");
        symlink("text", dir.path().join("link")).unwrap();
        let image = load(&sandbox, COMMAND_P3).await;
        let (mut spec, logs) = spec(&["command", "list"]);
        spec.mounts = vec![mount(dir.path(), "/data", true)];
        let command = sandbox.command(&image, spec).unwrap();
        let ending = tokio::time::timeout(Duration::from_secs(60), command.wait()).await;
        let said = logs.stdout.lock().clone();
        command.kill();
        (ending, said)
    });
    runtime.shutdown_background();
    let wanted = "link DescriptorType::SymbolicLink\nsub DescriptorType::Directory\ntext DescriptorType::RegularFile";
    assert_eq!(listed, (Ok(Ending::Finished { code: 0 }), wanted.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_too_long_for_the_memory_is_refused() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    // Preview 1 lists all for each buffer that is filled: fewer will do.
    for (wasm, files, too_little) in [(FILES_P2, 8000, 3 << 20), (FILES_P1, 1500, 7 << 18)] {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..files {
            file(dir.path().join(format!("{number:0250}")), "");
        }
        for limit_bytes in [96 << 20, too_little] {
            let printed = run(&sandbox, wasm, &["list /data", "write /data/a text"], |spec| {
                spec.mounts = vec![mount(dir.path(), "/data", false)];
                spec.limits.memory_bytes_max = limit_bytes;
            });
            let printed = printed.await;
            let refused = printed[0] == "OutOfMemory";
            assert_eq!((refused, printed[1].as_str()), (limit_bytes == too_little, "ok"));
            assert!(refused || printed[0].split(' ').count() == files, "{}", printed[0]);
            fs::remove_file(dir.path().join("a")).unwrap();
        }
    }
}
