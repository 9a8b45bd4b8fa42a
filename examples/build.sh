#!/usr/bin/env bash
# Builds the example guests: examples/NAME/NAME.wasm from the source beside it. Takes names, or builds all.
# Uses the rustup target wasm32-wasip2 when it is installed, else the toolchain whose env.sh is in the folder that GUEST_SDK names.
set -euo pipefail
cd "$(dirname "$0")"
if rustup target list --installed 2>/dev/null | grep -qx wasm32-wasip2; then
  :
elif [ -n "${GUEST_SDK:-}" ]; then
  . "$GUEST_SDK/env.sh"
else
  echo "build.sh: the target wasm32-wasip2 is missing: run 'rustup target add wasm32-wasip2'" >&2
  exit 1
fi
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
# Where this machine keeps things must not change what is built.
root=$(cd .. && pwd)
export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$root=/podium"
[ $# -gt 0 ] || set -- hello webhook
for name in "$@"; do
  (cd "$name" && cargo build --release --target wasm32-wasip2)
  cp "$CARGO_TARGET_DIR/wasm32-wasip2/release/${name//-/_}.wasm" "$name/$name.wasm"
  ls -l "$name/$name.wasm"
done
