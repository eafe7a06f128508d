"""ControlONE HA: high availability for ControlONE dispatch-console servers.

This file holds the version and imports nothing: `ha` and the console client stay small because
every module imports only what it uses.
"""

__version__ = "0.1.0"
