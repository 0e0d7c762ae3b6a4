#!/usr/bin/env bash
# Makes .venv with tonfs in it; installs missing system packages when root or sudo allows. Quick when nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(gcc pkg-config libfuse3-dev fuse3 python3-dev python3-venv)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  install="apt-get install -y --no-install-recommends ${missing[*]}"
  if [ "$(id -u)" = 0 ]; then
    echo "setup: installing ${missing[*]}" >&2
    apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive $install >&2
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    echo "setup: installing ${missing[*]} through sudo" >&2
    sudo apt-get update -qq >&2 && sudo DEBIAN_FRONTEND=noninteractive $install >&2
  else
    printf 'setup: these system packages are missing, and neither root nor sudo is at hand: %s\n' "${missing[*]}" >&2
    printf '       Type this once as root, then run make again:\n\n       apt-get update && %s\n\n' "$install" >&2
    exit 1
  fi
fi

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "setup: $python is older than Python 3.11; name another one with PYTHON=..." >&2; exit 1; }

# The environment is made anew when what it is made from changed, or when the checkout moved.
want=$(cat requirements.lock requirements-dev.lock pyproject.toml | sha256sum | cut -d' ' -f1)-$("$python" -V | tr ' ' -)-$PWD
stamp=.venv/.tonfs-setup
[ "$(cat "$stamp" 2>/dev/null || true)" = "$want" ] && exit 0
echo "setup: making .venv (a minute or two the first time)" >&2
[ -x .venv/bin/python ] && .venv/bin/python -c 'import sys' 2>/dev/null || "$python" -m venv --clear .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock -r requirements-dev.lock >&2
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . >&2
echo "$want" >"$stamp"
echo "setup: done; the command is .venv/bin/tonfs" >&2
