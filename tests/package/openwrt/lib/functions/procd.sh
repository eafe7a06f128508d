# shellcheck shell=sh
# Stand-in for procd.sh: gathers what a script says of its service and hands it, as JSON, to `ubus
# call service set`, as the real one does.

quoted() { printf '"%s"' "$(printf '%s' "$1" | sed 's/\\/\\\\/g; s/"/\\"/g')"; }

# Elements, separated by commas: quoted texts.
listed() {
	local separator=""
	for word in "$@"; do
		printf '%s' "$separator"
		quoted "$word"
		separator=,
	done
}

procd_open_service() {
	SERVICE_HEAD="{\"name\":$(quoted "$1"),\"script\":$(quoted "$2"),\"instances\":{"
	INSTANCES="" TRIGGERS="" INSTANCE_NUMBER=0
}

procd_open_instance() {
	INSTANCE_NUMBER=$((INSTANCE_NUMBER + 1))
	INSTANCE="$(quoted "${1:-instance$INSTANCE_NUMBER}"):{"
	PARAMETER_SEPARATOR=""
}

procd_set_param() {
	local name="$1" value table="" word
	shift
	case "$name" in
	command | file | netdev | respawn) value="[$(listed "$@")]" ;;
	env | limits)
		for word in "$@"; do
			table="$table${table:+,}$(quoted "${word%%=*}"):$(quoted "${word#*=}")"
		done
		value="{$table}"
		;;
	reload_signal) value="$(kill -l "$1")" ;;
	term_timeout) value="$1" ;;
	stdout | stderr | no_new_privs) [ "$1" = 1 ] && value=true || value=false ;;
	*) echo "procd_set_param: $name?" >&2 && exit 1 ;;
	esac
	INSTANCE="$INSTANCE$PARAMETER_SEPARATOR$(quoted "$name"):$value"
	PARAMETER_SEPARATOR=,
}

procd_close_instance() { INSTANCES="$INSTANCES${INSTANCES:+,}$INSTANCE}"; }

procd_add_reload_trigger() {
	for word in "$@"; do
		TRIGGERS="$TRIGGERS${TRIGGERS:+,}[\"config.change\",[\"if\",[\"eq\",\"package\",$(quoted "$word")],[\"run_script\",\"/etc/init.d/$service\",\"reload\"]],1000]"
	done
}

procd_add_validation() { "$@"; }

procd_close_service() {
	service_triggers
	ubus call service set "$SERVICE_HEAD$INSTANCES},\"triggers\":[$TRIGGERS]}"
}

uci_load_validate() {
	local package="$1" type="$2" name="$3"
	shift 4
	/sbin/validate_data "$package" "$type" "$name" "$@" >/dev/null
}
