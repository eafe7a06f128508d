#!/usr/bin/env bash
# Makes a Debian machine ready to develop, test and demonstrate ControlONE HA: Debian packages, the
# virtual environment in .venv, and the real parts (mongod, Asterisk) in a cache outside the checkout.
# Safe to repeat: what is there is skipped, and nothing is fetched when all is there.
#
#   CONTROLONE_CACHE   where the parts are kept (/var/cache/controlone-ha for root, else
#                      ~/.cache/controlone-ha)
#   PYTHON             the interpreter for .venv (python3); 3.11 or later
set -euo pipefail
# shellcheck source=scripts/paths.sh
. "$(dirname "${BASH_SOURCE[0]}")/paths.sh"
PATH=$PATH:/usr/sbin:/sbin
python=${PYTHON:-python3}
venv=$checkout/.venv
started=$SECONDS

# --- Debian packages: a package is wanted when what it is for cannot be found -------------------
wanted=()
need_command() { command -v "$1" >/dev/null 2>&1 || wanted+=("$2"); }
need_library() { ldconfig -p | grep -q "$1" || wanted+=("$2"); }

"$python" -c 'import ensurepip, venv' 2>/dev/null || wanted+=(python3-venv)
need_command sshd openssh-server         # the nodes' SSH, tested on both
need_command dropbear dropbear-bin
need_command dropbearkey dropbear-bin
need_command ssh openssh-client
need_command sipp sip-tester             # call probes, gateways and load of the lab
need_command baresip baresip-core        # real phones: without Replaces, and with
need_command linphone-daemon linphone-cli
need_command ip iproute2                 # looking at the lab's namespaces
need_command busybox busybox             # init scripts run on its ash, as on OpenWrt
need_command shellcheck shellcheck
need_command chromium chromium           # the web page, as a browser shows it
need_command chromedriver chromium-driver
need_command faketime faketime           # one node's clock that is wrong
need_command lsyncd lsyncd               # what the figures of files are measured against
need_command rsync rsync
need_command keepalived keepalived       # what the failover figures are measured against
need_library libcurl.so.4 libcurl4       # mongod's only library that a bare Debian lacks

install_packages() {
    [ "$(id -u)" = 0 ] || die "missing Debian packages; as root: apt-get install $*"
    local policy=/usr/sbin/policy-rc.d program service new_services=()
    while read -r program service; do
        command -v "$program" >/dev/null || new_services+=("$program $service")
    done <<<$'sshd ssh\nkeepalived keepalived'
    say "Debian packages: $*"
    # The lab starts its own; the machine must not get services it did not have.
    if [ ! -e "$policy" ]; then
        # shellcheck disable=SC2064  # the path is meant now
        trap "rm -f '$policy'" EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    # Lists that are missing or old make the first try fail; only then is it worth fetching them.
    quietly apt-get install -y --no-install-recommends "$@" 2>/dev/null || {
        quietly apt-get update
        quietly apt-get install -y --no-install-recommends "$@"
    }
    for program in "${new_services[@]}"; do
        read -r program service <<<"$program"
        command -v "$program" >/dev/null || continue
        quietly update-rc.d "$service" disable || say "note: could not disable the service $service"
    done
}

if [ ${#wanted[@]} -gt 0 ]; then
    mapfile -t wanted < <(printf '%s\n' "${wanted[@]}" | sort -u)
    install_packages "${wanted[@]}"
else
    say "Debian packages: present"
fi
# sshd refuses to start without its empty directory, which a reboot removes.
if [ "$(id -u)" = 0 ]; then install -d -m 755 /run/sshd; fi

# --- Asterisk, in the background: it needs only apt ---------------------------------------------
mkdir -p "$cache"
bash "$checkout/scripts/get-asterisk.sh" &
asterisk_job=$!

# --- virtual environment --------------------------------------------------------------------------
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "$("$python" --version) is too old: set PYTHON to Python 3.11 or later"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
export PIP_DISABLE_PIP_VERSION_CHECK=1
bash "$checkout/scripts/get-mongod.sh" "$venv/bin/python" &
mongod_job=$!
bash "$checkout/scripts/get-python-sources.sh" "$venv/bin/python" &
sources_job=$!
fingerprint=$(sha256sum <"$checkout/pyproject.toml")
if [ "$(cat "$venv/.installed" 2>/dev/null)" = "$fingerprint" ]; then
    say "virtual environment: present"
else
    say "virtual environment: .venv with the package and its development tools"
    quietly "$venv/bin/python" -m pip install -e "${checkout}[dev]"
    printf '%s\n' "$fingerprint" >"$venv/.installed"
fi

failed=0
wait "$mongod_job" || failed=1
wait "$asterisk_job" || failed=1
wait "$sources_job" || failed=1
[ "$failed" = 0 ] || die "some parts are missing, see above"
touch "$venv/.setup-complete"
say "ready after $((SECONDS - started)) s"
