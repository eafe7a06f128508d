"""Typed settings of the failover client, from ``/etc/config/console``.

Apart from the other packages' settings, as this one is read on console devices, which need nothing
of what a server's settings are made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from controlone_ha.config.sections import main_section, open_package
from controlone_ha.config.validate import (
    Findings,
    check_types,
    is_host,
    read_section,
    split_list,
)
from controlone_ha.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ConsoleSettings:
    """``/etc/config/console``."""

    server: tuple[str, ...]
    timeout: float
    lost_packets: int
    check_interval: float
    ping_interval: float
    return_policy: str
    return_delay: float
    standby_wait: float
    jitter: float
    port: int
    name: str
    queues: str
    sip: str
    warnings: tuple[str, ...] = ()


def load_console(config_dir: Path) -> ConsoleSettings:
    """Return the settings of the failover client. A bad entry of the server list is skipped with a
    warning: a console must not stand still for one of its servers.

    Raises ``ConfigError`` for anything else that is wrong, and when no entry is left.
    """
    file = config_dir / "console"
    if not file.exists():
        raise ConfigError(f"{file}: missing; set console.default.server to the list of servers")
    package, findings = open_package(file), Findings()
    section = main_section(package, "console", file)
    listed = section.option("server")
    if listed is not None:
        where = f"{file}:{listed.line or section.line}: console.{section.name}.server"
        items = split_list(listed)
        good = list(dict.fromkeys(item for item in items if is_host(item)))
        findings.warnings += [
            f"{where}: got {item!r}, expected a host name or an IP address; skipped"
            for item in dict.fromkeys(items)
            if not is_host(item)
        ]
        findings.warnings += [
            f"{where}: got {item!r} twice; the second is skipped"
            for item in good
            if items.count(item) > 1
        ]
        section.set("server", good)
    values = read_section(package, section, str(file), findings)
    check_types(package, str(file), findings)
    findings.raise_errors()
    values["return_policy"] = values.pop("return")
    return ConsoleSettings(warnings=tuple(findings.warnings), **values)
