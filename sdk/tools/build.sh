#!/usr/bin/env bash
# Builds the tools: tools.wasm beside this script, a core module over WASI preview 1 (whose exit codes are whole).
set -euo pipefail
cd "$(dirname "$0")"
. ../guest-toolchain.sh wasm32-wasip1
cargo build --quiet --release --target wasm32-wasip1
cp "$CARGO_TARGET_DIR/wasm32-wasip1/release/tools.wasm" tools.wasm
ls -l tools.wasm
