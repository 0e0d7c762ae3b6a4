#!/usr/bin/env bash
# Foreign software that checks tonfs from outside. Words choose (aws tonutils debian pjdfstest); none means all.
# Python judges get environments of their own in .judges/; what cannot be had is said in one line and left out.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .judges
say() { printf 'judges: %s\n' "$*" >&2; }
want() { [ ${#words[@]} = 0 ] || [[ " ${words[*]} " == *" $1 "* ]]; }
words=("$@")

make_judge() { # name requirement...
  want "$1" || return 0
  local dir=.judges/$1; shift
  [ "$(cat "$dir/.stamp" 2>/dev/null || true)" = "$*" ] && return 0
  say "installing $*"
  .venv/bin/python -m venv --clear "$dir"
  "$dir/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >&2
  echo "$*" >"$dir/.stamp"
}

debian_judges() { # program=package...
  want debian || return 0
  local missing=() pair
  for pair in "$@"; do command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}"); done
  [ ${#missing[@]} = 0 ] && return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing ${missing[*]}"
    apt-get update -qq </dev/null >&2 || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >&2 ||
      say "could not install ${missing[*]}; what needs them is left out"
  else
    say "not installed, and no root here: ${missing[*]} (as root: apt-get install ${missing[*]})"
  fi
}

cargo_judge() { # crate version
  want "$1" || return 0
  [ -x ".judges/cargo/bin/$1" ] && [ "$(cat ".judges/cargo/.$1" 2>/dev/null || true)" = "$2" ] && return 0
  command -v cargo >/dev/null || { say "no cargo here, so no $1"; return 0; }
  say "building $1 $2 (a minute or two)"
  cargo install --quiet --locked --root .judges/cargo --version "$2" "$1" >&2 || { say "could not build $1"; return 0; }
  echo "$2" >".judges/cargo/.$1"
}

make_judge aws awscli==1.46.3
make_judge tonutils tonutils==2.5.1
debian_judges fio=fio dbench=dbench stress-ng=stress-ng git=git rsync=rsync tar=tar setfacl=acl
cargo_judge pjdfstest 0.2.2
