# shellcheck shell=sh
# What the init scripts of ControlONE share. Sourced inside their functions, never when they are
# only enabled: an image builder does that without these packages' files in its own root.

PYTHON=${CONTROLONE_PYTHON:-/usr/bin/python3}

# One section of a package: SECTION VALIDATION. Called by config_foreach.
controlone_section() {
	"$2" "$1" || REFUSED=1
}

# Whether PACKAGE may be started. validate_data is quick and knows few types; what it refuses, the
# schema judges, whose sentences tell the person what was expected.
controlone_check() {
	local package="$1" message
	# shellcheck disable=SC1090
	. "${IPKG_INSTROOT}/usr/share/controlone/$package.sh"
	"validate_$package" 2>/dev/null && return 0
	message="$("$PYTHON" -P -m controlone_ha.config.check "$package" 2>&1)" && return 0
	echo "$message" >&2
	echo "$message" | logger -t "$package" -p daemon.err
	return 1
}

# Whether an instance of SERVICE runs now, as procd knows it.
controlone_running() {
	ubus -S call service list "{\"name\":\"$1\"}" 2>/dev/null | tr -d ' ' | grep -q '"running":true'
}

# Whether PACKAGE's instances may be told to procd. Where wrong settings meet a running daemon, procd
# is told nothing at all: what runs keeps what it has.
controlone_ready() {
	if controlone_running "$1"; then
		controlone_check "$1" || exit 1
	else
		controlone_check "$1"
	fi
}

# Whether SERVICE (Console Server, Conference Server) may have its instances now. `ha` decides where
# they run: it starts them by ordering so. By hand, or at boot, nothing is started that does not run
# already; what runs is registered again as it is, so that nothing is stopped either. Where HA is
# switched off (ha.default.enabled), a service starts as any other.
controlone_may_run() {
	local enabled
	[ "$CONTROLONE_ORDERED_BY" = ha ] && return 0
	[ -n "$WAS_RUNNING" ] && return 0
	controlone_running "$1" && return 0
	config_load ha
	config_get_bool enabled default enabled 1
	[ "$enabled" = 0 ] && return 0
	[ "${action:-}" = boot ] || echo "$1: \`ha\` decides where it runs; see: ha status" >&2
	return 1
}

# What stopping means for a service with calls or consoles. An upgrade of the package never ends a
# running one: it goes on with what it has loaded. A restart is refused when the new process would
# refuse its settings.
controlone_before_stop() {
	local package="$1"
	[ "${action:-}" = stop ] && [ "$PKG_UPGRADE" = 1 ] && exit 0
	[ "${action:-}" = restart ] || return 0
	controlone_running "$package" || return 0
	controlone_check "$package" || exit 1
	WAS_RUNNING=1
}

# How every instance is run: for ever, with what it says in the system's log.
controlone_instance() {
	procd_set_param respawn 3600 1 0
	procd_set_param stdout 1
	procd_set_param stderr 1
}
