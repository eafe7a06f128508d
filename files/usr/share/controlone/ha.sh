# shellcheck shell=sh
# Types of /etc/config/ha for procd, made from the table of options.
# Each function: NAME-OF-SECTION [CALLBACK], as uci_load_validate.

validate_ha_ha() {
	uci_load_validate ha ha "$1" "$2" \
		'enabled:bool' \
		'name:string' \
		'role:or("master","slave","passive")' \
		'peers:list(string)' \
		'secret:string' \
		'priority:and(integer,range(0,1000))' \
		'site:string' \
		'address:string' \
		'interval:and(float,range(0.5,3600))' \
		'heartbeat:and(float,range(0,60))' \
		'timeout:and(float,range(0.2,600))' \
		'failures:and(integer,range(1,100))' \
		'failback:bool' \
		'failback_delay:and(float,range(0,86400))' \
		'failback_damping:and(integer,range(1,1024))' \
		'stable:and(float,range(0,86400))' \
		'takeover_on_silence:or("confirm","take")' \
		'own_recovery:and(float,range(0,60))' \
		'slot:and(float,range(0,600))' \
		'ssh_user:string' \
		'ssh_port:range(1,65535)' \
		'authorized_keys:string' \
		'call_probe:and(integer,range(0,10000))' \
		'database:string' \
		'database_port:range(1,65535)' \
		'full_sync:and(float,range(5,604800))' \
		'max_skew:and(float,range(0.1,3600))' \
		'scrub:and(float,range(0,31536000))'
}

validate_ha_peer() {
	uci_load_validate ha peer "$1" "$2" \
		'address:string' \
		'monitor:bool' \
		'ssh_port:range(1,65535)' \
		'ssh_user:string' \
		'sync:bool'
}

validate_ha_limits() {
	uci_load_validate ha limits "$1" "$2" \
		'cpu:and(float,range(0,100))' \
		'cpu_duration:and(float,range(0,100000))' \
		'memory:and(float,range(0,100))' \
		'memory_duration:and(float,range(0,100000))' \
		'disk:and(float,range(0,100))' \
		'disk_duration:and(float,range(0,100000))' \
		'load:and(float,range(0,100000))' \
		'load_duration:and(float,range(0,100000))' \
		'temperature:and(float,range(0,100000))' \
		'temperature_duration:and(float,range(0,100000))' \
		'disk_paths:list(string)'
}

validate_ha_item() {
	uci_load_validate ha item "$1" "$2" \
		'paths:list(string)' \
		'exclude:list(string)' \
		'reload:string' \
		'direction:or("both","send","receive","none")' \
		'include:list(string)' \
		'urgent:list(string)' \
		'horizon:and(integer,range(1,3650))' \
		'drop_database:bool' \
		'max_age:and(integer,range(0,36500))' \
		'max_size:and(integer,range(0,100000000))'
}

# The whole of /etc/config/ha: 1 when something is refused or missing.
validate_ha() {
	local value
	REFUSED=0
	config_load ha || return 1
	config_foreach controlone_section ha validate_ha_ha
	config_foreach controlone_section peer validate_ha_peer
	config_foreach controlone_section limits validate_ha_limits
	config_foreach controlone_section item validate_ha_item
	config_get value default role
	[ -n "$value" ] || REFUSED=1
	config_get value default secret
	[ -n "$value" ] || REFUSED=1
	return "$REFUSED"
}
