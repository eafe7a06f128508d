#!/usr/bin/env bash
# Puts an Asterisk into the cache without installing it. Debian 12 and 13 have no package, but
# Debian testing has one: a private apt directory (own sources, state and cache) downloads it with
# every library down to libc, the packages are unpacked into a folder, and a wrapper runs it with
# that folder's own loader. Nothing on the host changes and root is not needed.
#
# Signatures are always checked, with Debian's archive keys. Should the host's keyring be older than
# testing's key, a newer debian-archive-keyring is taken from the host's own apt sources, which the
# host's keys vouch for, and used for this download only. If testing cannot be had, Debian 11's
# Asterisk 16 is taken instead; nothing unsigned ever is.
#
#   CONTROLONE_DEBIAN_MIRROR   a Debian mirror, instead of the one in the host's apt sources
#   CONTROLONE_ASTERISK_SUITES the suites to try in order (testing bullseye)
set -euo pipefail
# shellcheck source=scripts/paths.sh
. "$(dirname "${BASH_SOURCE[0]}")/paths.sh"
home=$cache/asterisk
tree=$home/tree

if [ -x "$home/run-asterisk" ] && [ -d "$tree" ]; then
    say "asterisk: present"
    exit 0
fi
mkdir -p "$home"
exec 9>"$home/lock"
flock 9
if [ -x "$home/run-asterisk" ] && [ -d "$tree" ]; then exit 0; fi
work=$(mktemp -d -p "$home")
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT

# The mirror of the host's own release, from its apt sources, whether or not lists were ever fetched.
find_mirror() {
    if [ -n "${CONTROLONE_DEBIAN_MIRROR:-}" ]; then
        printf '%s\n' "${CONTROLONE_DEBIAN_MIRROR%/}"
        return
    fi
    local codename
    # shellcheck disable=SC1091
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-sid}")
    apt-get update --print-uris |
        sed -n "s:^'\(.*\)/dists/\($codename\|stable\|testing\|unstable\|sid\)/InRelease'.*:\1:p" |
        head -n 1
}

find_keyring() {
    local root=$1 name
    for name in debian-archive-keyring.pgp debian-archive-keyring.gpg; do
        if [ -e "$root/usr/share/keyrings/$name" ]; then
            printf '%s\n' "$root/usr/share/keyrings/$name"
            return
        fi
    done
    return 1
}

# A newer keyring, verified by the host's apt with the keys it already trusts.
fetch_keyring() {
    mkdir -p "$work/keyring"
    (cd "$work/keyring" && quietly apt-get download debian-archive-keyring) || return 1
    dpkg-deb -x "$work"/keyring/debian-archive-keyring_*.deb "$work/keyring"
    find_keyring "$work/keyring"
}

# Downloads Asterisk of one suite. The empty status file makes apt fetch every dependency.
download() {
    local suite=$1 keyring=$2 apt=$work/$1
    rm -rf "$apt"
    mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/state/status"
    # check-valid-until: a mirror snapshot, or a suite that is no longer updated, is fine here.
    printf 'deb [check-valid-until=no signed-by=%s] %s %s main\n' \
        "$keyring" "$mirror" "$suite" >"$apt/sources.list"
    cat >"$apt/apt.conf" <<CONFIGURATION
Dir::State "$apt/state";
Dir::State::status "$apt/state/status";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Default-Release "";
APT::Install-Recommends "false";
APT::Get::AllowUnauthenticated "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "2";
CONFIGURATION
    APT_CONFIG=$apt/apt.conf quietly apt-get update --error-on=any &&
        APT_CONFIG=$apt/apt.conf quietly apt-get install -y --download-only asterisk
}

unpack() {
    local suite=$1 directory
    mkdir "$work/tree"
    # Two at a time: unpacking is decompression.
    # shellcheck disable=SC2016  # expanded by the inner shell
    find "$work/$suite/cache/archives" -name '*.deb' -print0 |
        xargs -0 -n 20 -P 2 sh -ec 'tree=$1; shift; for package; do dpkg-deb -x "$package" "$tree"; done' \
            unpack "$work/tree"
    for directory in lib lib64 bin sbin; do
        [ -e "$work/tree/$directory" ] || [ ! -d "$work/tree/usr/$directory" ] ||
            ln -s "usr/$directory" "$work/tree/$directory"
    done
    # What only a person or an installed system needs: a quarter of the size.
    rm -rf "$work"/tree/usr/share/{doc,man,locale,perl,perl5,info,lintian,snmp,zoneinfo,misc} \
        "$work"/tree/usr/lib/*/{perl,perl-base,gconv} "$work"/tree/usr/lib/gnupg "$work"/tree/var
    # The stock template of asterisk.conf ignores its directories until this mark is gone.
    sed -i 's/^\[directories\](!)/[directories]/' "$work/tree/etc/asterisk/asterisk.conf"
    chmod -R go+rX "$work/tree"
}

# The wrapper: the tree's own loader and libraries, wherever the cache was moved to.
write_wrapper() {
    cat >"$1" <<'WRAPPER'
#!/bin/sh
# Runs the Asterisk of this cache with the loader and the libraries it was built for.
tree=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)/tree
for loader in "$tree"/usr/lib/*/ld-linux-*.so.* "$tree"/lib/*/ld-linux-*.so.*; do
    [ -x "$loader" ] || continue
    triplet=$(basename "$(dirname "$loader")")
    exec "$loader" --library-path \
        "$tree/usr/lib/$triplet:$tree/lib/$triplet:$tree/usr/lib:$tree/usr/lib/asterisk" \
        "$tree/usr/sbin/asterisk" "$@"
done
echo "no loader in $tree" >&2
exit 127
WRAPPER
    chmod 755 "$1"
}

mirror=$(find_mirror)
[ -n "$mirror" ] || die "asterisk: no Debian mirror in the host's apt sources; set CONTROLONE_DEBIAN_MIRROR"
keyring=$(find_keyring "") || die "asterisk: no Debian archive keyring; install debian-archive-keyring"
newer_keyring=
for suite in ${CONTROLONE_ASTERISK_SUITES:-testing bullseye}; do
    say "asterisk: about 80 MB from Debian $suite"
    if ! download "$suite" "$keyring" 2>"$work/error"; then
        if grep -q -e NO_PUBKEY -e EXPKEYSIG -e 'not signed' "$work/error" && [ -z "$newer_keyring" ] &&
            newer_keyring=$(fetch_keyring); then
            say "asterisk: the host's keyring is older than the key of $suite; using a newer one that it vouches for"
            keyring=$newer_keyring
        fi
        if ! download "$suite" "$keyring" 2>"$work/error"; then
            say "asterisk: Debian $suite cannot be used:"
            tail -n 5 "$work/error"
            continue
        fi
    fi
    rm -rf "$work/tree"
    unpack "$suite"
    write_wrapper "$work/run-asterisk"
    if version=$("$work/run-asterisk" -V 2>&1); then
        rm -rf "$tree"
        mv "$work/tree" "$tree"
        mv "$work/run-asterisk" "$home/run-asterisk"
        chmod 755 "$home"
        say "asterisk: $version, from Debian $suite, signature verified"
        exit 0
    fi
    say "asterisk: the one of Debian $suite does not run: $version"
done
die "asterisk: none could be had"
