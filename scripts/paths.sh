# shellcheck shell=bash disable=SC2034
# Sourced by the set-up scripts: where things are kept and how they speak.
# controlone_ha/lab/parts.py resolves the same places for Python; a test compares the two.

# Downloads live outside the checkout, so that a fresh clone need not fetch them again. For root
# that is /var/cache and not root's home: Asterisk runs as an unprivileged user and must read it.
if [ -n "${CONTROLONE_CACHE:-}" ]; then
    cache=$CONTROLONE_CACHE
elif [ "$(id -u)" = 0 ]; then
    cache=/var/cache/controlone-ha
else
    cache=$HOME/.cache/controlone-ha
fi
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# Runs a command with its output kept in a log that is shown only when the command fails.
quietly() {
    local log
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}
