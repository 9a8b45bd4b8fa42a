#!/usr/bin/env bash
# Builds the guests of the sandbox's tests: NAME.wasm from the package NAME beside this script.
set -euo pipefail
cd "$(dirname "$0")"
. ../../../../sdk/guest-toolchain.sh wasm32-wasip1 wasm32-wasip2

# build PACKAGE TARGET FILE OUTPUT
build() {
  (cd "$1" && cargo build --quiet --release --target "$2")
  cp "$CARGO_TARGET_DIR/$2/release/$3.wasm" "$4.wasm"
}

build http-p2 wasm32-wasip2 http_p2 http-p2
build http-p3 wasm32-wasip2 http_p3 http-p3
build hostile wasm32-wasip2 hostile hostile
build command wasm32-wasip1 command command-p1
build command wasm32-wasip2 command command-p2
build files wasm32-wasip1 files files-p1
build files wasm32-wasip2 files files-p2
build tls wasm32-wasip2 tls tls-p2
build tls-p3 wasm32-wasip2 tls_p3 tls-p3
build interfaces wasm32-wasip1 interfaces interfaces-p1
build interfaces wasm32-wasip2 interfaces interfaces-p2
# The C guest needs clang with WASI's libc: ziglang, as PyPI has it, is both.
if python3 -c 'import ziglang' 2>/dev/null; then
  python3 -m ziglang cc -target wasm32-wasi -Os -s hello-c/hello.c -o hello-c.wasm
else
  echo "build.sh: hello-c.wasm stays as it is: run 'pip install ziglang' to build it" >&2
fi
build command-p3 wasm32-wasip2 command_p3 command-p3
build sockets-p1 wasm32-wasip1 sockets-p1 sockets-p1
build sockets-p2 wasm32-wasip2 sockets-p2 sockets-p2
build sockets-p3 wasm32-wasip2 sockets_p3 sockets-p3
build traps wasm32-wasip1 traps traps-lines
CARGO_PROFILE_RELEASE_STRIP=debuginfo build traps wasm32-wasip1 traps traps-names
ls -l ./*.wasm
