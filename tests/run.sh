#!/usr/bin/env bash
# All tests of Podium. Needs Rust and a C compiler; everything else is optional and said when missing.
#
#   tests/run.sh            everything
#   tests/run.sh -p podium-store --test it     what cargo test takes instead of --workspace
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cc >/dev/null 2>&1; then
  if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "tests/run.sh: installing a C compiler"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq gcc libc6-dev >/dev/null
  else
    echo "tests/run.sh: a C compiler is needed: apt-get install gcc libc6-dev" >&2
    exit 2
  fi
fi

# The end-to-end binary is started by the tests: it must be the one of this tree, in the profile of the tests. All targets at
# once, as the tests have them: with the binaries alone, dependencies have fewer features and would be compiled twice.
[ $# -gt 0 ] || set -- --workspace
cargo build --workspace --all-targets
cargo test --no-fail-fast "$@"
