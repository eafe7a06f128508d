"""The texts of the `ha` command in English. Same keys and parameters as ``texts_pt``."""

from __future__ import annotations

from controlone_ha.control.texts_trust_en import TEXTS as TRUST

TEXTS: dict[str, str] = {
    "never": "never",
    "yes": "yes",
    "no": "no",
    # Words of the API: roles and service names are settings and stay as they are.
    "state.starting": "starting",
    "state.active": "active",
    "state.degraded": "degraded",
    "state.disabled": "disabled",
    "state.standby": "standby",
    "state.passive": "passive",
    "state.unknown": "unknown",
    "verdict.alive": "alive",
    "verdict.suspect": "suspect",
    "verdict.silent": "silent",
    "verdict.failed": "failed",
    "verdict.unknown": "unknown",
    "verdict.refused": "refused",
    "verdict.service_failed": "failing",
    "verdict.no_daemon": "no `ha`",
    "service.serving": "serving",
    "service.disabled": "disabled",
    "service.stopped": "stopped",
    "service.frozen": "frozen",
    "service.failed": "failed",
    "service.unknown": "unknown",
    "link.up": "up",
    "link.connecting": "connecting",
    "link.refused": "refused",
    "link.down": "down",
    "link.unpaired": "unpaired",
    "sync.in sync": "in sync",
    "sync.pending": "pending",
    "sync.held": "held",
    "sync.never": "never",
    "sync.scanning": "looking at the files of {items} …",
    "sync.progress": "{files}/{files_total} files, {done}/{total}, {rate}/s",
    "sync.remaining": "about {seconds} s left",
    "sync.moved": "{files} files, {size} moved",
    "sync.equal": "in sync",
    "sync.no_peers": "no peer to synchronise with",
    "sync.finished": "{items}: done in {seconds} s",
    "diff.equal": "nothing differs from {peer}",
    "diff.only_here": "only here",
    "diff.only_there": "only on {peer}",
    "diff.deleted_here": "deleted here, kept on {peer}",
    "diff.deleted_there": "kept here, deleted on {peer}",
    "diff.newer_here": "newer here",
    "diff.newer_there": "newer on {peer}",
    "diff.here": "here",
    "conflicts.none": "nothing was lost in a conflict",
    "conflicts.edit": "{node}, {moment}",
    "conflicts.conflict": "lost to {node}'s edit of {moment}, which did not know it",
    "conflicts.damaged": "damaged on the disk, replaced by {node}'s version of {moment}",
    "conflicts.replaced": "replaced by {node}'s version of {moment}",
    "conflicts.copy": "the copy: {node}, {moment}",
    "conflicts.present": "the file as it is",
    "conflicts.same": "nothing differs",
    "conflicts.restored": "{path} is again what {node} made of it at {moment}; peers get it as an "
    "edit of this node",
    "column.id": "ID",
    "column.kept": "KEPT SINCE",
    "column.path": "FILE",
    "column.size": "SIZE",
    "column.version": "LOST VERSION",
    "column.why": "WHY",
    "database.forgotten": "{peer} is forgotten: {released} notes of how far it had read are gone",
    "database.progress": "{done} documents, {rate}/s, {remaining} remaining",
    "database.synced": "in sync, {applied} documents received in {seconds} s",
    "database.missing_here": "only on {peer}",
    "database.missing_there": "only here",
    "database.newer_here": "newer here",
    "database.newer_there": "newer on {peer}",
    "database.state": "database: {state}",
    "database.peer": "{peer}: {state}, last in sync {since}, lag {lag} ms, backlog {backlog}, "
    "conflicts {conflicts}",
    "database.no_conflicts": "no conflicts",
    "database.conflict": "{at}  {namespace} {document}: {won} won over {lost} ({id})",
    "database.password": "password of the database's administrator: ",
    "database.unreachable": "the database cannot be made right: {reason}. mongod.conf needs:",
    "database.right": "the database is as it has to be",
    "outcome.answered": "answered",
    "outcome.timeout": "no answer",
    "outcome.refused": "refused",
    "outcome.unreachable": "unreachable",
    "outcome.rejected": "wrong answer",
    "path.direct": "direct",
    "path.own": "own",
    "path.via": "via {node}",
    "evidence.age": "{age} before",
    # Columns and labels.
    "column.node": "NODE",
    "column.role": "ROLE",
    "column.state": "STATE",
    "column.since": "SINCE",
    "column.link": "LINK",
    "column.rtt": "RTT",
    "column.skew": "SKEW",
    "column.config": "CONFIG",
    "column.data": "DATA",
    "column.service": "SERVICE",
    "column.pid": "PID",
    "column.call": "CALL",
    "column.queue": "QUEUE",
    "column.parties": "PARTIES",
    "column.recording": "REC",
    "column.protected": "PROTECTED BY",
    "calls.none": "no live calls",
    "calls.no_takeovers": "no call has been taken over",
    "column.from": "FROM",
    "column.by": "BY",
    "column.ground": "GROUND",
    "column.taken": "TAKEN",
    "column.longest": "LONGEST",
    "column.legs": "LEGS",
    "calls.unheard": "the Conference Server of this node is not heard; what is shown may be old",
    "calls.nobody": "nobody",
    "call.queued": "queued",
    "call.ringing": "ringing",
    "call.up": "up",
    "call.held": "held",
    "call.lost": "lost",
    "column.restarts": "RESTARTS",
    "column.console": "CONSOLE",
    "console.pending": "asks to be enrolled",
    "console.connected": "connected",
    "console.enrolled": "not here",
    "console.not_enrolled": "connected, not enrolled",
    "console.is_revoked": "revoked",
    "console.none": "no console is enrolled, none is connected and none asks to be",
    "console.optional": "authentication is optional: consoles that are not enrolled log in, too",
    "console.approved": "{console} is enrolled",
    "console.revoked": "the credential of {console} is revoked",
    "column.detail": "DETAIL",
    "label.because": "Because",
    "label.node": "Node",
    "label.key": "Key",
    "label.forced": "Forced",
    "label.paused": "Paused",
    "label.abnormal": "Abnormal",
    # ha status
    "status.head": "{node}: role {role}, {state}",
    "status.since": " for {age}, since {moment}",
    "status.forced": "{state}, until `ha resume`",
    "status.paused": "by {by} since {moment}, no automatic change until `ha resume`",
    "status.abnormal": "{what} (for {age})",
    "status.address": "address {value}",
    "status.site": "site {value}",
    "status.priority": "priority {value}",
    "status.version": "version {value}",
    "status.started": "`ha` up {age}",
    "status.no_peers": "No peers are configured (option peers of /etc/config/ha).",
    "status.remedy": "→ {remedy}",
    "note.for": "{text} for {age}",
    "note.last_state": ", last seen {state}",
    "note.link": "link {state}",
    "note.held_config": "configuration is held back: {reason}",
    "note.held_data": "data is held back: {reason}",
    # Usage and the daemon
    "error.missing": "`ha {command}` needs an argument",
    "error.conflicts_action": "`ha conflicts`: {word!r}? nothing, diff ID or restore ID",
    "error.console_action": "`ha console`: {word!r}? list, approve NAME CODE or revoke NAME",
    "error.too_many": "`ha {command}`: {word!r} is one argument too many",
    "error.database_order": "no order {word!r} for the database: status, setup or conflicts",
    "error.unknown_command": "there is no command {word!r}",
    "error.nearest": "; did you mean `{word}`?",
    "error.unknown_option": "`ha {command}` has no option {word}",
    "error.no_value": "{word} takes no value",
    "error.needs_value": "{word} needs a value",
    "error.number": "{word}: got {value!r}, expected a number above 0, up to 10000",
    "error.hint": "see `ha help`",
    "daemon.absent": "the daemon is not running (`service ha start`)",
    "daemon.silent": "the daemon runs but does not answer: it may be frozen (`service ha restart`)",
    "daemon.denied": "permission denied: only root may ask the daemon",
    "daemon.no_status": "it has written no status since the node started",
    "daemon.last_status": "Last status it wrote, {age} ago; ages below count to now:",
    "column.time": "TIME",
    "column.kind": "KIND",
    "column.peer": "PEER",
    "column.event": "WHAT AND WHY",
    "column.now": "NOW",
    "column.then": "THEN",
    "column.after": "AFTER",
    "column.because": "BECAUSE",
    "column.outcome": "OUTCOME",
    "column.address": "ADDRESS",
    "column.direction": "OPENED",
    "kind.state": "state",
    "kind.peer": "peer",
    "kind.service": "service",
    "kind.force": "force",
    "kind.pause": "pause",
    "kind.link": "link",
    "kind.config": "config",
    "kind.takeover": "takeover",
    "kind.sync": "sync",
    "kind.start": "start",
    "kind.login": "login",
    "kind.refused": "refused",
    "kind.trust": "trust",
    "kind.licence": "licence",
    "kind.audit": "audit",
    "direction.dialed": "from here",
    "direction.accepted": "by peer",
    "link_code.closed": "closed by the other side",
    "link_code.reset": "the connection was reset",
    "link_code.silent": "no frame arrived in time",
    "link_code.replaced": "replaced by a newer connection",
    "link_code.unpaired": "not paired: run `ha pair`",
    "severity.error": "Error",
    "severity.warning": "Warning",
    "history.empty": "No entry.",
    "history.by": " (by {by})",
    "history.unwritten": " [{count} earlier entries were lost]",
    "why.head": "{name}: {state}",
    "why.decisions": "Last decisions, newest first:",
    "why_not.yes": "{node} would take over from {peer}.",
    "why_not.no": "{node} does not take over from {peer}.",
    "plan.head": "If {peer} died now:",
    "plan.stays": "stays",
    "check.fine": "Nothing is wrong.",
    "check.sum": "{errors} errors, {warnings} warnings",
    "probe.head": "Probes of {peer}, from this node:",
    "keys.own": "this node",
    "keys.key": "key",
    "keys.certificate": "certificate",
    "keys.host_key": "host key",
    "keys.none": "No peer is paired: run `ha pair PEER`.",
    "keys.no_identity": "This node has no key yet.",
    "pair.unknown": "no node named {name!r} is paired",
    "pair.unpaired": "{name} is no longer trusted by this node.",
    "outcome.state": "This node is {state}.",
    "outcome.continues": "Meanwhile, as before:",
    "reload.done": "Settings read again.",
    "error.since": "--since: got {value!r}, expected 30m, 2h, 1d, a date or seconds since 1970",
    "help.head": "ha: state and control of this node's high availability",
    "help.tail": (
        "Everywhere: --json (-j), --lang en|pt_BR, --help (-h). `ha help COMMAND` "
        "tells more.\n"
        "Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 daemon not running, "
        "4 not healthy."
    ),
    "usage.status": "ha status [-w [SECONDS]] [-e]",
    "usage.history": "ha history [-n N] [--peer PEER]",
    "usage.why": "ha why [PEER]",
    "usage.why_not": "ha why-not PEER",
    "usage.plan": "ha plan PEER",
    "usage.check": "ha check",
    "usage.probe": "ha probe PEER",
    "usage.links": "ha links",
    "usage.calls": "ha calls [--takeovers]",
    "usage.sync": "ha sync [ITEM]",
    "usage.diff": "ha diff PEER [ITEM]",
    "usage.conflicts": "ha conflicts [diff|restore]",
    "usage.database": "ha database [ORDER]",
    "usage.forget": "ha forget PEER",
    "usage.force_passive": "ha force_passive",
    "usage.force_active": "ha force_active",
    "usage.pause": "ha pause [REASON]",
    "usage.resume": "ha resume",
    "usage.pair": "ha pair [USER@]PEER[:PORT]",
    "usage.pair_accept": "ha pair-accept",
    "usage.metrics": "ha metrics",
    "usage.console": "ha console [ACTION]",
    "usage.reload": "ha reload",
    "usage.events": "ha events [--kind KIND]",
    "usage.version": "ha version",
    "usage.help": "ha help [COMMAND]",
    "help.status": (
        "this node, its services and its peers\n"
        "-w, --watch [SECONDS]  show again every 2 (or SECONDS) seconds and at every "
        "transition\n"
        "-e, --exit-code        exit 4 unless node and peers are healthy: no "
        "abnormality, warning, force or\n"
        "                       pause, no service failed, every peer alive and linked, "
        "nothing held back\n"
        "With the daemon down: the last state it wrote, with its age; exit 3."
    ),
    "help.history": (
        "transitions of this node, the newest last\n"
        "-n, --limit N     how many (20)\n"
        "--kind KIND       state, peer, service, force, pause, config, sync, login, refused,\n"
        "                  trust, licence, audit, takeover\n"
        "--node NODE       of another node, from the copy kept here; all: of every node\n"
        "--who NAME        what NAME did, or a console of that name\n"
        "--peer PEER       those that concern PEER\n"
        '--since WHEN      30m, 2h, 1d, a date (2026-01-31 or "2026-01-31 08:00") or '
        "seconds since 1970\n"
        "With the daemon down the node's file is read; exit 3."
    ),
    "help.why": (
        "why this node (or its verdict on PEER) is so\n"
        "-n, --limit N     how many decisions are shown"
    ),
    "help.why_not": "what keeps this node from taking over from PEER",
    "help.plan": "what every node would do if PEER died now",
    "help.check": "everything that is wrong, with remedies; exit 4 if any",
    "help.probe": "probe the services of PEER now; exit 4 unless all answer",
    "help.links": "the link to each peer",
    "help.calls": "live calls: where they are, who is in them, who could take them",
    "help.sync": "synchronise now with all peers (config, jobs, recordings, sounds)",
    "help.diff": "what is not the same on a peer",
    "help.conflicts": (
        "versions that lost a conflict: list, diff ID, restore ID\n\n"
        "diff ID shows what differs from the file as it is; restore ID makes the copy an edit of\n"
        "this node, and keeps what it replaces. --all (-a) lists also what was merely replaced\n"
        "by a newer version. With the daemon down, list and diff work from the files; exit 3."
    ),
    "help.database": "the database: status, setup (makes its mongod right) or conflicts",
    "help.forget": "keep no deletes for a node that will not return",
    "help.force_passive": "make this node passive until `ha resume`",
    "help.force_active": "make this node active until `ha resume`",
    "help.pause": "no automatic change of state until `ha resume`, reboots included",
    "help.resume": "end what was forced or paused",
    "help.pair": (
        "exchange keys with PEER, once, by logging in to it\n"
        "-i, --identity FILE     private key for the login; else agent, ~/.ssh, then a "
        "password\n"
        "--fingerprint SHA256:…  host key of PEER that is right; else it is shown and asked\n"
        "--accept-host-key       believe any host key (a cable between the two, "
        "nothing else)\n"
        "Both nodes then trust each other's key; the rest of the cluster is introduced "
        "over the link."
    ),
    "help.pair_accept": "the other side of `ha pair`: an offer in, this node's offer out",
    "help.metrics": "OpenMetrics text",
    "help.console": (
        "consoles: connected, enrolled, asking to be\n\n"
        "ACTION: list, approve NAME CODE, or revoke NAME.\n"
        "`console enrol SERVER` on the console shows the code. A revoked\n"
        "console is sent away at once, and by the other nodes when they have the change."
    ),
    "help.reload": "read the settings again",
    "help.events": "follow the transitions until interrupted",
    "help.version": "version of the product",
    "help.help": "this list, or more about one command",
    "state.paused": "paused",
    "history.refused": "{to} refused: {text}",
    "pair.host_key": (
        "{host} port {port} shows the host key {fingerprint} ({kind}).\n"
        "Compare it with what that node says of itself (`ha keys`, or ssh-keygen -l there)."
    ),
    "pair.confirm": "Is it right? (yes/no)",
    "pair.yes": "yes y",
    "pair.offer": (
        "The offer is of node {name}, fingerprint {fingerprint}.\n"
        "Compare it with what `ha pair-export` said there."
    ),
    "pair.not_confirmed": "not confirmed; compare it and use --fingerprint {fingerprint}",
    "pair.exported": (
        "fingerprint of this offer: {fingerprint}\n"
        "ha: take it to the other node (`ha pair-import FILE`) and bring that node's "
        "offer here"
    ),
    "pair.done": "Paired with {name} ({address}), key {key}.",
    "pair.replaced": "{name} had another key before: {key}.",
    "pair.not_listed": (
        "{name} is not in ha.default.peers of this node yet, so it is neither watched nor linked."
    ),
    "usage.pair_export": "ha pair-export",
    "usage.pair_import": "ha pair-import FILE",
    "help.pair_export": "this node's offer, for pairing without a login",
    "help.pair_import": (
        "take another node's offer from FILE (- is stdin)\n"
        "--fingerprint SHA256:…  what `ha pair-export` said there; else it is shown and asked"
    ),
    "link_code.wrong_secret": "the secret differs",
    "link_code.unknown_key": "the other side does not know this node's key",
    "link_code.unknown_host_key": "the peer's SSH host key is not the pinned one",
    "link_code.unknown_node": "the two nodes are not paired",
    "link_code.version": "the releases cannot speak with each other",
    "link_code.protocol": "the protocol was broken",
    "link_code.trust": "the pins cannot be used",
    "link_code.refused": "refused",
    "link_code.no_daemon": "`ha` does not run there",
    "link_code.stopping": "`ha` there is stopping",
    "link_code.busy": "too many attempts at once",
    "link_code.ssh": "SSH failed",
    "finding.weak_secret": "the cluster's secret is weak",
    "remedy.weak_secret": (
        "set a longer ha.default.secret on every node, then `service ha restart`"
    ),
    "finding.no_peers": (
        "ha.default.peers is empty: this node watches nobody and nobody is asked to cover it"
    ),
    "remedy.no_peers": "uci set ha.default.peers=…; uci commit; service ha restart",
    "finding.unpaired": "{peer} is not paired: no key of it is pinned here",
    "remedy.unpaired": "ha pair {address}",
    "finding.peer_down": "{peer} is not there: {verdict}",
    "remedy.peer_down": "`ha why {peer}` has the evidence; this clears when it is back",
    "finding.never_answered": "{peer} has never answered since it was configured",
    "remedy.never_answered": (
        "check its address, that it runs, and that TCP/22 and TCP/7551 are open"
    ),
    "finding.skew": "the clock of {peer} differs by {seconds} s",
    "remedy.skew": "set up NTP on both nodes",
    "finding.wrong_secret": "link with {peer}: the secret differs",
    "remedy.wrong_secret": (
        "set the same ha.default.secret on both nodes, then `service ha restart`"
    ),
    "finding.unknown_key": "link with {peer}: one side does not know the other's key",
    "remedy.unknown_key": "pair the two nodes again: `ha pair`",
    "finding.unknown_host_key": "link with {peer}: its SSH host key is not the pinned one",
    "remedy.unknown_host_key": (
        "if the peer was reinstalled, pair it again; if not, find out who answers"
    ),
    "finding.unknown_node": "link with {peer}: the nodes are not paired",
    "remedy.unknown_node": "pair the two nodes: `ha pair`",
    "finding.version": "link with {peer}: the releases cannot speak with each other",
    "remedy.version": "bring both nodes to the same release",
    "finding.refused": "link with {peer}: refused",
    "remedy.refused": "see `ha links` and the log of both nodes",
    "finding.unknown_option": "{line}",
    "remedy.unknown_option": "correct or remove the line",
    "finding.bad_value": "{line}",
    "remedy.bad_value": "correct the line; the settings in force are the ones read before",
    "finding.no_key": "this node's key cannot be used: {why}",
    "remedy.no_key": (
        "restore the key from a backup; or remove it, start `ha` once and pair the node anew"
    ),
    "finding.exposed_key": "{file} can be read by others than root (mode {mode})",
    "remedy.exposed_key": "chmod go= {file}; if others were on this node, make a new key",
    "finding.no_authorized_keys": "{file} cannot be read: {why}",
    "remedy.no_authorized_keys": "see ha.default.authorized_keys; `ha` writes its lines at start",
    "finding.not_let_in": "{file} has no line of {peer}: its link cannot come in here",
    "remedy.not_let_in": "service ha restart; see ha.default.authorized_keys",
    "finding.clock_unset": "the clock of this node shows {time}: it was never set",
    "remedy.clock_unset": "set up NTP; until then changes made here lose against all others",
    "finding.database_down": "the database on port {port} does not answer: {why}",
    "remedy.database_down": "start it; the node works without it and catches up later",
    "finding.releases": "{peer} runs release {theirs}, this node {own}",
    "remedy.releases": "bring both nodes to the same release when convenient",
    "finding.flapping": "{peer} has come back {returns} times in ten minutes",
    "remedy.flapping": "`ha history` and `ha why {peer}` say why it failed; it is trusted less now",
    "finding.gateway_silent": (
        "gateway {gateway} ({host} port {port}, {transport}) gives {local} no answer: {why}"
    ),
    "remedy.gateway_silent": "let {local} through its access list and the firewalls on the way",
    "finding.gateway_forbids": (
        "gateway {gateway} ({host} port {port}, {transport}) refuses {local}: {why}"
    ),
    "remedy.gateway_forbids": (
        "enter {local} in its access list; see conference.{gateway}.username and password"
    ),
    "finding.gateway_busy": (
        "gateway {gateway} ({host} port {port}, {transport}) says that it cannot serve: {why}"
    ),
    "remedy.gateway_busy": "see what the gateway itself reports",
    "finding.gateway_replaces": "gateway {gateway} does not know Replaces: {why}",
    "remedy.gateway_replaces": (
        "uci set conference.{gateway}.replaces=0: its calls are then taken over by adoption"
    ),
    "finding.gateway_new_call": (
        "gateway {gateway} took the replacement of an unknown call for a new call: {why}"
    ),
    "remedy.gateway_new_call": (
        "uci set conference.{gateway}.replaces=0: its calls are then taken over by adoption"
    ),
    "finding.port_closed": "{what} of {peer} ({host} port {port}) cannot be reached: {why}",
    "remedy.port_closed": "let TCP port {port} through between the nodes, and see that it runs",
}
TEXTS |= TRUST
