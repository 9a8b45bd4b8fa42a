#!/usr/bin/env bash
# Builds the tools: tools.wasm beside this script, a core module over WASI preview 1 (whose exit codes are whole).
# Uses the rustup target wasm32-wasip1 when it is installed, else the toolchain whose env.sh is in the folder that GUEST_SDK names.
set -euo pipefail
cd "$(dirname "$0")"
if rustup target list --installed 2>/dev/null | grep -qx wasm32-wasip1; then
  :
elif [ -n "${GUEST_SDK:-}" ]; then
  . "$GUEST_SDK/env.sh"
else
  echo "build.sh: the target wasm32-wasip1 is missing: run 'rustup target add wasm32-wasip1'" >&2
  exit 1
fi
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
# Where this machine keeps things must not change what is built.
root=$(cd ../.. && pwd)
export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$root=/podium"
cargo build --quiet --release --target wasm32-wasip1
cp "$CARGO_TARGET_DIR/wasm32-wasip1/release/tools.wasm" tools.wasm
ls -l tools.wasm
