#!/usr/bin/env bash
# Foreign software that checks tonfs from outside, each in an environment of its own: .judges/aws, .judges/tonutils
set -euo pipefail
cd "$(dirname "$0")/.."
make_judge() { # name requirement...
  local dir=.judges/$1; shift
  [ "$(cat "$dir/.stamp" 2>/dev/null || true)" = "$*" ] && return 0
  echo "judges: installing $*" >&2
  .venv/bin/python -m venv --clear "$dir"
  "$dir/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >&2
  echo "$*" >"$dir/.stamp"
}
make_judge aws awscli==1.46.3
make_judge tonutils tonutils==2.5.1
