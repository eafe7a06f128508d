"""Synchronisation of the database item: independent databases that agree, the last writer winning.

Runs as a child process of `ha` (``python -m controlone_ha.sync.database``), because pymongo would
cost every daemon 20 MB; `ha` itself uses ``client`` and ``settings`` only, which import no driver.
``docs/database.md`` explains it to people; ``versions``, ``judge`` and ``digest`` decide.
"""
