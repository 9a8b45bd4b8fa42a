#!/usr/bin/env bash
# Builds what stands in for the images of Kubernetes' tests: box.wasm, web.wasm and pause.wasm beside this script.
# Uses the rustup targets wasm32-wasip1 and wasm32-wasip2 when they are installed, else the toolchain whose env.sh is in the
# folder that GUEST_SDK names.
set -euo pipefail
cd "$(dirname "$0")"
installed=$(rustup target list --installed 2>/dev/null || true)
if grep -qx wasm32-wasip1 <<<"$installed" && grep -qx wasm32-wasip2 <<<"$installed"; then
  :
elif [ -n "${GUEST_SDK:-}" ]; then
  . "$GUEST_SDK/env.sh"
else
  echo "build.sh: targets are missing: run 'rustup target add wasm32-wasip1 wasm32-wasip2'" >&2
  exit 1
fi
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
# Where this machine keeps things must not change what is built.
root=$(cd ../.. && pwd)
export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$root=/podium"
cargo build --quiet --release --target wasm32-wasip2
cp "$CARGO_TARGET_DIR/wasm32-wasip2/release/testimages.wasm" box.wasm
(cd web && cargo build --quiet --release --target wasm32-wasip2)
cp "$CARGO_TARGET_DIR/wasm32-wasip2/release/web.wasm" web.wasm
# Without the C library's start, and with a stack of one KiB.
RUSTFLAGS="$RUSTFLAGS -C link-self-contained=no -C link-arg=-zstack-size=1024" \
  cargo build --quiet --release --target wasm32-wasip1 --manifest-path pause/Cargo.toml
cp "$CARGO_TARGET_DIR/wasm32-wasip1/release/pause.wasm" pause.wasm
ls -l ./*.wasm
