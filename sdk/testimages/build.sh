#!/usr/bin/env bash
# Builds what stands in for the images of Kubernetes' tests: box.wasm, web.wasm and pause.wasm beside this script.
set -euo pipefail
cd "$(dirname "$0")"
. ../guest-toolchain.sh wasm32-wasip1 wasm32-wasip2
cargo build --quiet --release --target wasm32-wasip2
cp "$CARGO_TARGET_DIR/wasm32-wasip2/release/testimages.wasm" box.wasm
(cd web && cargo build --quiet --release --target wasm32-wasip2)
cp "$CARGO_TARGET_DIR/wasm32-wasip2/release/web.wasm" web.wasm
# Without the C library's start, and with a stack of one KiB.
RUSTFLAGS="$RUSTFLAGS -C link-self-contained=no -C link-arg=-zstack-size=1024" \
  cargo build --quiet --release --target wasm32-wasip1 --manifest-path pause/Cargo.toml
cp "$CARGO_TARGET_DIR/wasm32-wasip1/release/pause.wasm" pause.wasm
ls -l ./*.wasm
