#!/usr/bin/env bash
# Makes .venv with tonfs in it; installs missing system packages when root or sudo allows. Instant when nothing is missing.
# PYTHON=... names another interpreter than python3.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf 'setup: %s\n' "$*" >&2; }

python=${PYTHON:-python3}
version=$("$python" -V 2>/dev/null) || { say "there is no $python; install Python 3.11 or name one with PYTHON=..."; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  say "$python is $version, and tonfs needs Python 3.11 or newer; name another one with PYTHON=..."; exit 1; }

exec 9<scripts/setup.sh && flock 9 # one at a time: two makes in one checkout must not fill .venv together
want="$(cat requirements.lock requirements-dev.lock pyproject.toml setup.py tonfs/network/_fast/*.[hc] | sha256sum | cut -d' ' -f1) $version $PWD"
stamp=.venv/.tonfs-setup
[ "$(cat "$stamp" 2>/dev/null || true)" = "$want" ] && command -v fusermount3 >/dev/null && exit 0

# pyfuse3 is compiled here: that takes a compiler, libfuse and Python's headers. We look for the things, not for Debian's
# packages, so that other ways of having them count.
find_missing() {
  missing=()
  command -v gcc >/dev/null || missing+=(gcc)
  echo '#include <stdio.h>' | gcc -E -x c - >/dev/null 2>&1 || missing+=(libc6-dev)
  command -v pkg-config >/dev/null || missing+=(pkg-config)
  pkg-config --exists fuse3 2>/dev/null || missing+=(libfuse3-dev)
  command -v fusermount3 >/dev/null || missing+=(fuse3)
  "$python" -c 'import os, sys, sysconfig as s; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' ||
    missing+=(python3-dev)
  "$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
}
find_missing
if [ ${#missing[@]} -gt 0 ]; then
  install="apt-get install -y --no-install-recommends ${missing[*]}"
  if ! command -v apt-get >/dev/null; then
    say "these are missing (Debian's names; there is no apt-get here to install them): ${missing[*]}"; exit 1
  elif [ "$(id -u)" = 0 ]; then
    as_root=(env DEBIAN_FRONTEND=noninteractive)
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo env DEBIAN_FRONTEND=noninteractive)
  else
    say "these system packages are missing, and neither root nor sudo is at hand: ${missing[*]}"
    printf '       Type this once as root, then run make again:\n\n       apt-get update && %s\n\n' "$install" >&2
    exit 1
  fi
  say "installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq </dev/null >&2
  # shellcheck disable=SC2086 # a list of words
  "${as_root[@]}" $install -qq </dev/null >&2
  find_missing
  [ ${#missing[@]} -eq 0 ] || { say "still missing after the installation, for $python ($version): ${missing[*]}"; exit 1; }
fi

# An environment stays as long as it works, is of this Python and was made at this place (its scripts name the place).
usable() {
  [ "$(.venv/bin/python -V 2>/dev/null)" = "$version" ] && .venv/bin/python -c 'import pip' 2>/dev/null &&
    grep -qF "$PWD/.venv/bin/" .venv/bin/pip 2>/dev/null
}
say "making .venv with $version (a minute or two the first time)"
usable || "$python" -m venv --clear .venv
rm -f "$stamp"
pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input)
"${pip[@]}" -r requirements.lock -r requirements-dev.lock >&2
"${pip[@]}" --no-deps --no-build-isolation -e . >&2
.venv/bin/python -c 'import pyfuse3, tonfs.cli.main'
.venv/bin/python -c 'import pytvm' 2>/dev/null ||
  say "the local network (make demo, tonfs devnet) needs CPython 3.11 on x86-64 and is left out; the rest is there"
echo "$want" >"$stamp"
say "done; the command is .venv/bin/tonfs"
