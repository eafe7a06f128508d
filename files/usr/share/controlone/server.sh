# shellcheck shell=sh
# Types of /etc/config/server for procd, made from the table of options.
# Each function: NAME-OF-SECTION [CALLBACK], as uci_load_validate.

validate_server_server() {
	uci_load_validate server server "$1" "$2" \
		'bind:string' \
		'port:range(1,65535)' \
		'max_connections:and(integer,range(1,100000))' \
		'authentication:or("required","optional")' \
		'conference:list(string)' \
		'spread:or("least_calls","round_robin")'
}

# The whole of /etc/config/server: 1 when something is refused or missing.
validate_server() {
	local value
	REFUSED=0
	config_load server || return 1
	config_foreach controlone_section server validate_server_server
	return "$REFUSED"
}
