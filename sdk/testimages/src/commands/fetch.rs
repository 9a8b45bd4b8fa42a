//! `curl` and `wget`: one request over plain HTTP, with redirects followed when that is asked for.

use std::{fs, io::Write as _, time::Duration};

use podium_tools::{Code, io::Io};

use crate::{
    http::{Answer, Trouble, Url, fetch},
    net::Failure,
    tasks::{FOREVER, block_on, within},
};

const REDIRECTS_MAX: u32 = 10;
const LONG: Duration = Duration::from_secs(120);

/// What is asked for.
#[derive(Clone)]
struct Job {
    url: String,
    method: Option<String>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    connect_within: Duration,
    all_within: Duration,
    follow: bool,
}

impl Job {
    fn new() -> Self {
        Self {
            url: String::new(),
            method: None,
            headers: Vec::new(),
            body: Vec::new(),
            connect_within: LONG,
            all_within: FOREVER,
            follow: false,
        }
    }

    fn header(&mut self, text: &str) {
        if let Some((name, value)) = text.split_once(':') {
            self.headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }
}

enum Failed {
    Url(String),
    Slow,
    Asked(Trouble, Url),
}

fn run(job: Job) -> Result<Answer, Failed> {
    let time = job.all_within;
    block_on(async move { within(time, ask(job)).await.unwrap_or(Err(Failed::Slow)) }).unwrap_or(Err(Failed::Slow))
}

async fn ask(job: Job) -> Result<Answer, Failed> {
    let mut target = job.url.clone();
    let method = job.method.as_deref().unwrap_or(if job.body.is_empty() { "GET" } else { "POST" });
    for _ in 0..=REDIRECTS_MAX {
        let url = Url::parse(&target).map_err(Failed::Url)?;
        let answer = match fetch(&url, method, &job.headers, &job.body, job.connect_within).await {
            Ok(answer) => answer,
            Err(trouble) => return Err(Failed::Asked(trouble, url)),
        };
        let next = answer.header("location").filter(|_| job.follow && (300..400).contains(&answer.status));
        match next {
            Some(next) if next.contains("://") => target = next.to_owned(),
            Some(next) => target = format!("http://{}{next}", url.authority()),
            None => return Ok(answer),
        }
    }
    Err(Failed::Url(format!("Maximum ({REDIRECTS_MAX}) redirects followed")))
}

/// How curl shows what came.
#[derive(Default)]
struct Shown {
    silent: bool,
    errors: bool,
    fail: bool,
    head: bool,
    file: Option<String>,
    format: String,
}

pub fn curl(args: &[String], io: &mut Io) -> Code {
    let (mut job, mut shown) = (Job::new(), Shown::default());
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if let Some(name) = arg.strip_prefix("--") {
            if curl_option(name, &mut rest, &mut job, &mut shown).is_none() {
                io.fail("curl", format_args!("option --{name}: is unknown here"));
                return 2;
            }
            continue;
        }
        let Some(letters) = arg.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            job.url.clone_from(arg);
            continue;
        };
        for (at, letter) in letters.char_indices() {
            let name = long_name(letter);
            let behind = &letters[at + letter.len_utf8()..];
            // `-o/dev/null` and `-o /dev/null` mean the same.
            let with_value = matches!(letter, 'X' | 'H' | 'd' | 'o' | 'w' | 'm' | 'A');
            let glued = [behind.to_owned()];
            let known = match with_value && !behind.is_empty() {
                true => curl_option(name, &mut glued.iter(), &mut job, &mut shown),
                false => curl_option(name, &mut rest, &mut job, &mut shown),
            };
            if known.is_none() {
                io.fail("curl", format_args!("option -{letter}: is unknown here"));
                return 2;
            }
            if with_value {
                break;
            }
        }
    }
    show(run(job), &shown, io)
}

fn long_name(letter: char) -> &'static str {
    match letter {
        's' => "silent",
        'S' => "show-error",
        'f' => "fail",
        'i' => "include",
        'I' => "head",
        'L' => "location",
        'X' => "request",
        'H' => "header",
        'd' => "data",
        'o' => "output",
        'w' => "write-out",
        'm' => "max-time",
        'A' => "user-agent",
        // What changes nothing here: no globs, no file of settings, no certificates, no progress.
        'g' | 'q' | 'k' | 'v' | 'N' | '4' | '6' | 'j' => "ignored",
        _ => "unknown",
    }
}

fn curl_option<'a>(
    name: &str,
    rest: &mut impl Iterator<Item = &'a String>,
    job: &mut Job,
    shown: &mut Shown,
) -> Option<()> {
    let mut value = || rest.next().cloned().unwrap_or_default();
    let time = |text: &str| Duration::try_from_secs_f64(text.parse().ok()?).ok();
    match name {
        "silent" => shown.silent = true,
        "show-error" => shown.errors = true,
        "fail" => shown.fail = true,
        "include" => shown.head = true,
        "head" => {
            job.method = Some("HEAD".to_owned());
            shown.head = true;
        }
        "location" => job.follow = true,
        "request" => job.method = Some(value()),
        "header" => job.header(&value()),
        "data" | "data-raw" | "data-binary" => {
            job.body = value().into_bytes();
            if !job.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
                job.header("Content-Type: application/x-www-form-urlencoded");
            }
        }
        "output" => shown.file = Some(value()),
        "write-out" => shown.format = value(),
        "user-agent" => job.header(&format!("User-Agent: {}", value())),
        "max-time" => job.all_within = time(&value())?,
        "connect-timeout" => job.connect_within = time(&value())?,
        "url" => job.url = value(),
        "resolve" | "retry" | "interface" | "cacert" => drop(value()),
        "ignored" | "insecure" | "globoff" | "disable" | "verbose" | "no-buffer" | "compressed"
        | "no-progress-meter" | "http1.1" | "ipv4" | "ipv6" => {}
        _ => return None,
    }
    Some(())
}

fn show(result: Result<Answer, Failed>, shown: &Shown, io: &mut Io) -> Code {
    let mut fail = |code: Code, why: String| {
        if !shown.silent || shown.errors {
            io.fail("curl", format_args!("({code}) {why}"));
        }
        if !shown.format.is_empty() {
            let _ = io.output.write_all(shown.format.replace("%{http_code}", "000").replace("\\n", "\n").as_bytes());
        }
        code
    };
    let answer = match result {
        Ok(answer) => answer,
        Err(Failed::Url(why)) if why.starts_with("Protocol") => return fail(1, why),
        Err(Failed::Url(why)) => return fail(3, why),
        Err(Failed::Slow) => return fail(28, "Operation timed out".to_owned()),
        Err(Failed::Asked(Trouble::Lookup(_), url)) => return fail(6, format!("Could not resolve host: {}", url.host)),
        Err(Failed::Asked(Trouble::Connect(Failure::TimedOut), _)) => {
            return fail(28, "Connection timed out".to_owned());
        }
        Err(Failed::Asked(Trouble::Connect(why), url)) => {
            return fail(7, format!("Failed to connect to {} port {}: {why}", url.host, url.port));
        }
        Err(Failed::Asked(Trouble::Cut, _)) => return fail(52, "Empty reply from server".to_owned()),
    };
    if shown.fail && answer.status >= 400 {
        return fail(22, format!("The requested URL returned error: {}", answer.status));
    }
    let mut out = if shown.head { answer.head.clone().into_bytes() } else { Vec::new() };
    out.extend_from_slice(&answer.body);
    match shown.file.as_deref() {
        None | Some("-") => drop(io.output.write_all(&out)),
        Some("/dev/null") => {}
        Some(file) => {
            if let Err(error) = fs::write(file, &out) {
                return fail(23, format!("{file}: {}", podium_tools::io::words(&error)));
            }
        }
    }
    let text = shown
        .format
        .replace("%{http_code}", &answer.status.to_string())
        .replace("%{response_code}", &answer.status.to_string());
    let _ = io.output.write_all(text.replace("\\n", "\n").as_bytes());
    0
}

pub fn wget(args: &[String], io: &mut Io) -> Code {
    let (mut job, mut quiet, mut to, mut spider, mut head) =
        (Job { follow: true, ..Job::new() }, false, None, false, false);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let (name, glued) = match arg.split_once('=').filter(|_| arg.starts_with("--")) {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        let mut value = || glued.clone().or_else(|| rest.next().cloned()).unwrap_or_default();
        match name {
            "-q" | "--quiet" => quiet = true,
            "-O" | "--output-document" => to = Some(value()),
            "-qO-" | "-q0-" | "-O-" => {
                quiet |= name != "-O-";
                to = Some("-".to_owned());
            }
            "-qO" => {
                quiet = true;
                to = Some(value());
            }
            "-T" | "--timeout" => job.all_within = Duration::from_secs(value().parse().unwrap_or(900)),
            "--spider" | "-s" => spider = true,
            "-S" | "--server-response" => head = true,
            "--header" => job.header(&value()),
            "--post-data" => job.body = value().into_bytes(),
            "-t" | "--tries" | "-U" | "--user-agent" => drop(value()),
            other if other.starts_with('-') => {}
            url => job.url = url.to_owned(),
        }
    }
    let url = job.url.clone();
    let answer = match run(job) {
        Ok(answer) => answer,
        Err(Failed::Url(why)) => return io.fail("wget", why),
        Err(Failed::Slow) => return io.fail("wget", "download timed out"),
        Err(Failed::Asked(Trouble::Lookup(_), url)) => {
            return io.fail("wget", format_args!("bad address '{}'", url.host));
        }
        Err(Failed::Asked(Trouble::Connect(why), url)) => {
            return io.fail("wget", format_args!("can't connect to remote host ({}): {why}", url.host));
        }
        Err(Failed::Asked(Trouble::Cut, _)) => return io.fail("wget", "error getting response"),
    };
    let first = answer.head.lines().next().unwrap_or_default().to_owned();
    if head {
        let _ = io.errors.write_all(answer.head.as_bytes());
    }
    if !quiet {
        let _ = io.errors.write_all(format!("Connecting to {url} ({})\n", answer.address).as_bytes());
    }
    if answer.status >= 400 {
        return io.fail("wget", format_args!("server returned error: {first}"));
    }
    if spider {
        return 0;
    }
    let path = url.split('?').next().unwrap_or_default().trim_end_matches('/');
    let named = path.split("://").last().unwrap_or_default().split_once('/').and_then(|(_, p)| p.rsplit('/').next());
    match to.as_deref().unwrap_or(named.unwrap_or("index.html")) {
        "-" => drop(io.output.write_all(&answer.body)),
        "/dev/null" => {}
        file => {
            if let Err(error) = fs::write(file, &answer.body) {
                return io.fail("wget", format_args!("can't open '{file}': {}", podium_tools::io::words(&error)));
            }
        }
    }
    0
}
