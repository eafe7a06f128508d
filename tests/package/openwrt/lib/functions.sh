# shellcheck shell=sh
# Stand-in for OpenWrt's functions.sh: reading UCI, and what a package's scripts call.

config_load() { eval "$(uci-assignments "$1")"; }

config_get() { eval "$1=\"\${CONFIG_$2_$3:-\$4}\""; }

config_get_bool() {
	config_get "$@"
	eval "case \"\$$1\" in 1|on|true|yes|enabled) $1=1 ;; 0|off|false|no|disabled) $1=0 ;; *) $1=\$4 ;; esac"
}

config_foreach() {
	local function="$1" wanted="$2" section type
	shift 2
	for section in $CONFIG_SECTIONS; do
		config_get type "$section" TYPE
		[ "$type" = "$wanted" ] && "$function" "$section" "$@"
	done
	return 0
}

# What a package's postinst and prerm call; the order is opkg's: uci-defaults, the package's own
# script, then enable and start.
default_postinst() {
	local name file
	name="$(basename "${1%.*}")"
	for file in $(grep -s '^/etc/uci-defaults/' "/usr/lib/opkg/info/$name.list"); do
		# shellcheck disable=SC1090
		( [ -f "$file" ] && cd "$(dirname "$file")" && . "$file" ) && rm -f "$file"
	done
	# shellcheck disable=SC1090
	[ ! -f "/usr/lib/opkg/info/$name.postinst-pkg" ] || ( . "/usr/lib/opkg/info/$name.postinst-pkg" )
	for file in $(grep -s '^/etc/init.d/' "/usr/lib/opkg/info/$name.list"); do
		[ "$PKG_UPGRADE" = 1 ] || "$file" enable
		"$file" start
	done
}

default_prerm() {
	local name file
	name="$(basename "${1%.*}")"
	for file in $(grep -s '^/etc/init.d/' "/usr/lib/opkg/info/$name.list"); do
		[ "$PKG_UPGRADE" = 1 ] || "$file" disable
		"$file" stop
	done
}
