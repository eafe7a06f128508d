#!/usr/bin/env bash
# Puts the sources of the Python packages that no OpenWrt feed carries into the cache, for `make
# ipk`: names, versions and hashes are those of package/python-*/Makefile.
# Usage: get-python-sources.sh PYTHON-WITH-PIP
set -euo pipefail
# shellcheck source=scripts/paths.sh
. "$(dirname "${BASH_SOURCE[0]}")/paths.sh"
python=${1:?usage: get-python-sources.sh PYTHON-WITH-PIP}
target=$cache/python-sources
mkdir -p "$target"
work=$(mktemp -d -p "$target")
trap 'rm -rf "$work"' EXIT

field() { sed -n "s/^$2:=//p" "$1"; }

for makefile in "$checkout"/package/python-*/Makefile; do
    name=$(field "$makefile" PYPI_NAME)
    version=$(field "$makefile" PKG_VERSION)
    hash=$(field "$makefile" PKG_HASH)
    if [ -e "$target/$name-$version/.complete" ]; then continue; fi
    say "$name $version: sources from PyPI"
    rm -rf "${work:?}"/*
    wheel=$(field "$makefile" WHEEL_HASH)
    printf '%s==%s --hash=sha256:%s\n' "$name" "$version" "${wheel:-$hash}" >"$work/requirements.txt"
    kind=--no-binary
    [ -z "$wheel" ] || kind=--only-binary
    quietly "$python" -m pip download --no-deps "$kind" :all: -d "$work" -r "$work/requirements.txt"
    rm -rf "$target/$name-$version"
    mkdir "$work/tree"
    if [ -n "$wheel" ]; then
        "$python" -m zipfile -e "$work"/*.whl "$work/tree"
    else
        tar -xzf "$work"/*.tar.gz -C "$work/tree" --strip-components=1 --no-same-owner
    fi
    touch "$work/tree/.complete"
    mv "$work/tree" "$target/$name-$version"
done
say "python sources: present"
