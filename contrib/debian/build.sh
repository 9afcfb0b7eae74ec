#!/usr/bin/env bash
# Build the Debian packages into a folder (default: dist). Runs on Debian 12 with python3-venv, python3-all-dev, gcc,
# debhelper, dh-python and the network: Debian's setuptools and shtab are older than our build backend wants them, and
# there is no python3-posix-ipc, so pip makes both wheels in an environment of their own.
set -euo pipefail
root=$(realpath "$(dirname "$0")/../..")
out=$(realpath -m "${1:-dist}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1

mkdir -p "$out" "$work/ipclock"
tar -C "$root" --exclude-vcs --exclude='./.*' --exclude=./build --exclude=./dist --exclude=__pycache__ -cf - . |
    tar -C "$work/ipclock" -xf -
cd "$work/ipclock"
mv contrib/debian debian

/usr/bin/python3 -m venv "$work/venv"
"$work/venv/bin/pip" -q wheel --no-deps -w wheels .
# hardened as Debian's own extensions are
eval "$(DEB_BUILD_MAINT_OPTIONS=hardening=+all dpkg-buildflags --export=sh)"
"$work/venv/bin/pip" -q wheel --no-deps --no-binary posix_ipc -w wheels posix_ipc

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' ipclock/__init__.py)
cat > debian/changelog <<END
ipclock ($version-1) bookworm; urgency=medium

  * See CHANGELOG.md.

 -- $(sed -n 's/^Maintainer: //p' debian/control)  $(date -R)
END
dpkg-buildpackage -us -uc -b
cp ../*.deb ../*.buildinfo ../*.changes "$out"
