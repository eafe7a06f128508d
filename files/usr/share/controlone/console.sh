# shellcheck shell=sh
# Types of /etc/config/console for procd, made from the table of options.
# Each function: NAME-OF-SECTION [CALLBACK], as uci_load_validate.

validate_console_console() {
	uci_load_validate console console "$1" "$2" \
		'server:list(string)' \
		'timeout:and(float,range(0.2,600))' \
		'lost_packets:and(integer,range(1,100))' \
		'check_interval:and(float,range(1,3600))' \
		'ping_interval:and(float,range(0,600))' \
		'return:or("at_once","idle","never")' \
		'return_delay:and(float,range(0,86400))' \
		'standby_wait:and(float,range(0,600))' \
		'jitter:and(float,range(0,60))' \
		'port:range(1,65535)' \
		'name:string' \
		'queues:string' \
		'sip:string'
}

# The whole of /etc/config/console: 1 when something is refused or missing.
validate_console() {
	local value
	REFUSED=0
	config_load console || return 1
	config_foreach controlone_section console validate_console_console
	config_get value default server
	[ -n "$value" ] || REFUSED=1
	return "$REFUSED"
}
