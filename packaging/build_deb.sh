#!/usr/bin/env bash
# Builds the Debian package of this checkout into build/deb/. Needs debhelper and the Build-Depends of debian/control.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v dh >/dev/null || { echo "build_deb: debhelper is missing: apt-get install debhelper" >&2; exit 1; }
target=build/deb/tonfs
rm -rf build/deb && mkdir -p "$target"
git ls-files -z | tar --null --files-from=- -cf - | tar -xf - -C "$target"
cp -r packaging/debian "$target/debian"
(cd "$target" && dpkg-buildpackage --build=binary --no-sign --unsigned-changes)
ls build/deb/*.deb
