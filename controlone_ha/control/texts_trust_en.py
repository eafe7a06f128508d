"""The texts about trust, licences and the audit in English; part of ``texts_en``."""

from __future__ import annotations

TEXTS: dict[str, str] = {
    "usage.keys": "ha keys [rotate|new]",
    "help.keys": (
        "fingerprints of this node, of its peers, and who is expelled\n"
        "rotate: another key for this node, while its links stay up; the present one counts for\n"
        "--grace HOURS (24), too, for peers and consoles that are away.\n"
        "new: a new key and certificate at once; this node then has to be paired again."
    ),
    "keys.new_question": "{name} gets a new key: every peer has to pair with it again.",
    "keys.new_not_confirmed": "not confirmed; use --yes where nobody can answer",
    "keys.new_done": "New key {key}. Restart ha, server and mongod, then pair this node.",
    "keys.rotating": (
        "The next key of this node is {key}. Its peers hear of it now; it is used once all of\n"
        "them have been linked for some seconds. The present one counts, too, for {hours} h."
    ),
    "keys.announced": "the next one, told to the peers; until {until}",
    "keys.used": "the last one, counts until {until}",
    "keys.other": "counts, too, until {until}",
    "error.keys_order": (
        "`ha keys {word}` does not exist; there are `ha keys rotate` and `ha keys new`"
    ),
    "usage.unpair": "ha unpair PEER [--here]",
    "help.unpair": (
        "expel the key of PEER from the cluster, for ever\n"
        "Every node drops the link, the SSH key and the certificate of PEER within seconds, and\n"
        "nodes that are away do so when they return. It comes back only with new keys\n"
        "(`ha keys new` on it, then `ha pair`). Set a new secret afterwards if it was stolen.\n"
        "--reason TEXT: why, for the audit. \n"
        "--here: only this node forgets PEER, until it is paired again."
    ),
    "pair.expelled": "{name} is expelled from the cluster, key {key}.",
    "keys.expelled": "expelled: {name}, {key}, {at} by {by} at {node}: {why}",
    "link_code.expelled": "expelled from the cluster",
    "finding.expelled": "{peer} is expelled from the cluster",
    "remedy.expelled": "take {peer} out of ha.default.peers, or pair the node that replaces it",
    "usage.leave": "ha leave",
    "help.leave": (
        "hand over and be passive until `ha` starts the next time\n"
        "`service ha stop` and a shutdown of the system do it first. A node from which nobody\n"
        "could take over, or whose state is forced, stays as it is (exit code 1)."
    ),
    "leave.done": "This node has handed over; it comes back when `ha` starts again.",
    "leave.nobody": "Nobody takes over now, or this node is forced: it stays as it is.",
    "usage.licence": "ha licence [ACTION]",
    "help.licence": (
        "licences CO-LICE-HA: who is covered, and new ones\n"
        "list (default): masters, files, which of them count; exits with 4 if some are missing.\n"
        "verify FILE: is it signed by the vendor? install FILE: keep it; it spreads to every node."
    ),
    "error.licence_action": (
        "`ha licence {word}` does not exist; there are list, verify FILE and install FILE"
    ),
    "licence.masters": "Masters: {count} ({names}); licences CO-LICE-HA that count: {valid}.",
    "licence.missing": "Without a licence, so that nobody takes over from them: {names}.",
    "licence.none": "No licence in {directory}: `ha licence install FILE`.",
    "licence.serial": "SERIAL",
    "licence.state": "STATE",
    "licence.expires": "EXPIRES",
    "licence.customer": "CUSTOMER",
    "licence.verified": "{serial} is signed by the vendor: {customer}, expires {expires}.",
    "licence.installed": "{serial} is installed: {customer}, expires {expires}.",
    "licence_state.valid": "valid",
    "licence_state.expired": "expired",
    "licence_state.foreign": "of another cluster",
    "licence_state.duplicate": "installed twice",
    "licence_state.forged": "forged",
    "licence_state.unreadable": "unreadable",
    "finding.licences_missing": (
        "{masters} masters, {valid} licences CO-LICE-HA: nobody takes over from {names}"
    ),
    "remedy.licences_missing": "ha licence install FILE, on any node, for each master",
    "finding.licence_expired": "licence {file} expired on {detail}",
    "remedy.licence_expired": (
        "install its successor with `ha licence install FILE`, then remove it on every node"
    ),
    "finding.licence_foreign": "licence {file} was issued for another cluster ({detail})",
    "remedy.licence_foreign": (
        "remove it on every node, or have it issued for a key that `ha keys` shows"
    ),
    "finding.licence_duplicate": "licence {file} is there twice and counts once ({detail})",
    "remedy.licence_duplicate": (
        "each master needs a licence of its own serial; remove the copy on every node"
    ),
    "finding.licence_forged": "licence {file} is not the vendor's: {detail}",
    "remedy.licence_forged": "remove it on every node; ask the vendor for a licence",
    "finding.licence_unreadable": "licence {file} cannot be read: {detail}",
    "remedy.licence_unreadable": (
        "copy it again from what the vendor sent, then `ha licence install FILE`"
    ),
    "finding.licence_ends": "licence {file} ends on {date}",
    "remedy.licence_ends": "ask the vendor for its successor; running calls go on in any case",
    "usage.audit": "ha audit [verify]",
    "help.audit": (
        "verify the histories that this node keeps\n"
        "Each line has the hash of the one before: a line that was removed or changed shows, and\n"
        "so does an end that was cut off, because every node keeps copies of the others.\n"
        "Exit code 4 if something does not fit."
    ),
    "error.audit_action": "`ha audit {word}` does not exist; there is `ha audit verify`",
    "audit.own": "own",
    "audit.copy": "copy",
    "audit.broken": "{count} problems",
    "audit.whole": "whole",
    "audit.head_node": "NODE",
    "audit.head_what": "WHAT",
    "audit.head_range": "LINES",
    "audit.head_lines": "KEPT",
    "audit.head_state": "STATE",
    "audit.held": "Up to which line of this node others hold it: {names}.",
    "finding.audit": "the history does not fit what was kept elsewhere",
    "remedy.audit": "ha audit, here and on the nodes that it names; compare who had access to them",
    "usage.support": "ha support [FILE]",
    "help.support": "an archive for whoever helps, secrets masked",
    "support.done": "{file}: {count} files, secrets masked.",
    "usage.secret": "ha secret rotate [--grace H]",
    "help.secret": (
        "a new cluster secret on this node, links stay up\n"
        "Asked for on the terminal, or read from standard input. The old one is accepted too, for\n"
        "H hours (24): do it on every node within that time. The old secret itself is not kept."
    ),
    "error.secret_order": "`ha secret {word}` does not exist; there is `ha secret rotate`",
    "secret.ask": "New secret:",
    "secret.same": "no new secret was given",
    "secret.done": (
        "New secret in force; the old one is accepted for {hours} h: do it on every other node."
    ),
}
