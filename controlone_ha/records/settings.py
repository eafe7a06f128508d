"""Where the node's database is: read from the ``ha`` file alone, whatever else is wrong there."""

from __future__ import annotations

from pathlib import Path

from controlone_ha.config.schema import rows_of
from controlone_ha.config.validate import BadValueError, parse
from controlone_ha.errors import UciError
from controlone_ha.uci import load


def database_address(config_dir: Path) -> tuple[str, int] | None:
    """Return host and port; None where there is no database by the settings, or no such file."""
    file = config_dir / "ha"
    if not file.exists():
        return None
    rows = rows_of("ha", "ha")
    host, port = str(rows["database"].default), int(rows["database_port"].default or 0)
    try:
        package = load(file)
    except UciError:
        return host, port
    section = package.section("default") or next(package.sections("ha"), None)
    if section is not None:
        try:
            if (option := section.option("database")) is not None:
                host = str(parse(rows["database"], option))
            if (option := section.option("database_port")) is not None:
                port = int(parse(rows["database_port"], option))
        except BadValueError:
            return None
    return None if host == "none" else (host, port)
