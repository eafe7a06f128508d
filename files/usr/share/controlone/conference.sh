# shellcheck shell=sh
# Types of /etc/config/conference for procd, made from the table of options.
# Each function: NAME-OF-SECTION [CALLBACK], as uci_load_validate.

validate_conference_conference() {
	uci_load_validate conference conference "$1" "$2" \
		'bind:string' \
		'port:range(1,65535)' \
		'tls_port:and(integer,range(0,65535))' \
		'adoption_port:and(integer,range(0,65534))' \
		'media_address:string' \
		'codecs:list(string)' \
		'max_calls:and(integer,range(0,100000))' \
		'settle:and(float,range(0,60))' \
		'silence:and(float,range(0.5,60))' \
		'takeover_sound:or("ring","silence")' \
		'recordings:string' \
		'recorder:string' \
		'recorder_url:string' \
		'recorder_source:or("server","console")'
}

validate_conference_queue() {
	uci_load_validate conference queue "$1" "$2" \
		'number:string' \
		'strategy:or("all","round_robin","least_recent")' \
		'ring_timeout:and(float,range(1,3600))' \
		'ring_step:and(float,range(1,600))' \
		'overflow:string' \
		'priority:and(integer,range(0,1000))' \
		'record:bool'
}

validate_conference_gateway() {
	uci_load_validate conference gateway "$1" "$2" \
		'host:string' \
		'port:range(1,65535)' \
		'transport:or("udp","tcp","tls")' \
		'username:string' \
		'password:string' \
		'codecs:list(string)' \
		'replaces:bool' \
		'check_replaces:bool'
}

validate_conference_route() {
	uci_load_validate conference route "$1" "$2" \
		'prefix:string' \
		'pattern:string' \
		'strip:and(integer,range(0,32))' \
		'add:string' \
		'gateways:list(string)'
}

# The whole of /etc/config/conference: 1 when something is refused or missing.
validate_conference() {
	local value
	REFUSED=0
	config_load conference || return 1
	config_foreach controlone_section conference validate_conference_conference
	config_foreach controlone_section queue validate_conference_queue
	config_foreach controlone_section gateway validate_conference_gateway
	config_foreach controlone_section route validate_conference_route
	return "$REFUSED"
}
