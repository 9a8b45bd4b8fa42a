//! The shell of the tools, by what its scripts say and end with.

use bytes::Bytes;
use podium_agent::streams::Tools;
use serde_json::json;

use crate::{
    cluster::{Cluster, hello},
    streams::{exec, talk},
};

/// Script, output and errors as they come, exit code.
const SCRIPTS: &[(&str, &str, i32)] = &[
    // What pods of Kubernetes' own tests run.
    ("echo hi; sleep 0; exit 3", "hi\n", 3),
    ("trap exit TERM; for i in 1 2; do echo $i; sleep 0; done", "1\n2\n", 0),
    ("if [[ -r /work/foo ]] ; then exit 0; else touch /work/foo; exit 1; fi", "", 1),
    ("if [[ -r /work/foo && -n x ]] ; then exit 0; else exit 1; fi", "", 0),
    ("JOB_COMPLETION_INDEX=3; exit $(expr ${JOB_COMPLETION_INDEX} % 2)", "", 1),
    ("exit $(( $RANDOM / 32768 + 4 ))", "", 4),
    ("f=/work/n\ncount=$(echo 'hello' >> $f ; wc -l $f | awk {'print $1'})\nexit $count", "", 1),
    (
        "echo test > /work/f; cat /work/f /nowhere || echo failed",
        "test\ncat: /nowhere: No such file or directory\nfailed\n",
        0,
    ),
    ("for i in $(seq 1 3); do echo; echo -n $i; done | tr -d '\\n'", "123", 0),
    // Words.
    ("x='a  b'; echo $x \"$x\" '$x' a\\ b", "a b a  b $x a b\n", 0),
    ("set -- 1 '2 3'; for w in \"$@\"; do echo [$w]; done; shift; echo $# $1", "[1]\n[2 3]\n1 2 3\n", 0),
    (
        "x=a.tar.gz; echo ${x%.gz} ${x%%.*} ${x#*.} ${x##*.} ${#x} ${x/a/b} ${y:-c} ${x:+d}",
        "a.tar a tar.gz gz 8 b.tar.gz c d\n",
        0,
    ),
    ("echo ${y:=1} $y; echo ${z?is missing}; echo never", "1 1\nsh: z: is missing\n", 2),
    ("cd /work; touch q.a q.b; echo q.* 'q.*' q.[b-z] nothing*", "q.a q.b q.* q.b nothing*\n", 0),
    (
        "echo $((2+3*4)) $(((2+3)*4)) $((0x10|1)) $((5>3&&2<1)) $((-7%3)) $((1<<4)); i=1; echo $((i+1)) $((i=5)) $i",
        "14 20 17 0 -1 16\n2 5 5\n",
        0,
    ),
    ("echo $((7/0)); echo never", "sh: arithmetic: division by zero\n", 2),
    // Control.
    ("case abc in x) echo x;; a*|b) echo yes;; *) echo no; esac", "yes\n", 0),
    ("f() { local a=1; echo \"$1-$#-$a\"; return 4; }; a=0; f x y; echo $? $a", "x-2-1\n4 0\n", 0),
    (
        "i=0; while :; do i=$((i+1)); [ $i = 2 ] && continue; [ $i -gt 3 ] && break; echo $i; done; until false; do break; done",
        "1\n3\n",
        0,
    ),
    ("set -e; false || echo a; if false; then :; fi; ! true || echo b; false; echo never", "a\nb\n", 1),
    ("x=$(false) || echo failed; x=$(exit 5); echo $?; true && false; echo $?", "failed\n5\n1\n", 0),
    ("(cd /work; y=1; exit 3); echo $? [$y]; cd /work; (cd /); pwd", "3 []\n/work\n", 0),
    ("trap 'echo bye $?' EXIT; exit 6", "bye 6\n", 6),
    ("echo a & wait; { echo b; echo c; } | while read l; do echo got $l; done", "a\ngot b\ngot c\n", 0),
    ("sh -c 'echo $0 $1' zero one; command -v cat; type nothing", "zero one\n/bin/cat\n", 127),
    // Streams.
    (
        "echo a >&2 2>/dev/null; echo b 2>&1 >/dev/null; { echo c; echo d >&2; } >/dev/null 2>&1; nothing 2>/dev/null; echo $?",
        "a\n127\n",
        0,
    ),
    (
        "cat <<EOF; cat <<'EOF'; cat <<-EOF\nx $((1+1))\nEOF\ny $((1+1))\nEOF\n\tz\nEOF\ncat <<< w",
        "x 2\ny $((1+1))\nz\nw\n",
        0,
    ),
    (
        "while read a b; do echo $b $a; done < /work/f > /work/g; cat /work/g; echo x &> /work/g; cat /work/g",
        "test\nx\n",
        0,
    ),
    ("echo no > /nowhere/f; echo $?", "sh: /nowhere/f: No such file or directory\n1\n", 0),
    // Commands.
    (
        "echo 'a b c' | cut -d' ' -f2,3; echo abc | cut -c2-; echo foo.bar | sed 's/o/0/g;s/^f/F/'; echo aabb | tr -s ab xy",
        "b c\nbc\nF00.bar\nxy\n",
        0,
    ),
    (
        "printf '1 2\\n3 4\\n' | awk '/3/ {print $2, NF, $NF}'; echo 'a:b' | awk -F: '{print $2}'; echo 1 2 3 | xargs -n 2 echo n",
        "4 2 4\nb\nn 1 2\nn 3\n",
        0,
    ),
    ("echo -n hello | base64; echo aGVsbG8= | base64 -d; expr 1 + 2 '*' 3; expr a = b", "aGVsbG8=\nhello7\n0\n", 1),
    // Mistakes.
    ("if true; then echo a", "sh: syntax error: unexpected end\n", 2),
    ("echo a; done", "sh: syntax error: \"done\" is unexpected\n", 2),
    ("nothing here", "sh: nothing: not found\n", 127),
];

#[tokio::test(flavor = "multi_thread")]
async fn scripts_do_what_they_say() {
    let cluster = Cluster::start_with(|config| {
        config.tools = Tools::Module(Bytes::from_static(include_bytes!("../../../../sdk/tools/tools.wasm")));
    })
    .await;
    let mut container = hello();
    container["volumeMounts"] = json!([{ "name": "work", "mountPath": "/work" }]);
    cluster.pod("web", json!({ "containers": [container], "volumes": [{ "name": "work", "emptyDir": {} }] })).await;
    cluster.until_ready("web").await;
    let mut wrong = Vec::new();
    for (script, output, code) in SCRIPTS {
        // One stream, so that their order shows.
        let whole = ["sh", "-c", script];
        let (out, err, end) = talk(exec(&cluster, "web", false, &whole).await.unwrap(), "").await;
        let together = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        let same = out == *output || (!err.is_empty() && together(&format!("{out}{err}")) == together(output));
        if !same || end != Ok(*code) {
            wrong.push(format!("{script}\n  -> {out:?} {err:?} {end:?}, not {output:?} {code}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    cluster.shutdown().await;
}
