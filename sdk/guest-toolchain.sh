# For the scripts that build guests: `. guest-toolchain.sh TARGET…` finds a toolchain for these targets, and lets nothing of
# where this machine keeps things into what is built.
# Uses the rustup targets when they are installed, else the toolchain whose env.sh is in the folder that GUEST_SDK names.
guest_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for target in "$@"; do
  if rustup target list --installed 2>/dev/null | grep -qx "$target"; then
    continue
  elif [ -n "${GUEST_SDK:-}" ]; then
    . "$GUEST_SDK/env.sh"
    break
  fi
  echo "build.sh: the target $target is missing: run 'rustup target add $*'" >&2
  exit 1
done
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$guest_root=/podium"
