"""The vocabulary of errors: one root, few children, each message one sentence for a person.

Imports nothing of the package. ``code`` is stable and machine readable; the text says what was
got, what was expected and, where there is one, the remedy.
"""

from __future__ import annotations


class ControlOneError(Exception):
    """Root of all errors this product raises on purpose."""

    code = "error"


class ConfigError(ControlOneError):
    """A setting is wrong: ``file:line: package.section.option: got …, expected …``."""

    code = "config"


class UciError(ControlOneError):
    """A UCI file or request is wrong (syntax, missing package, bad name)."""

    code = "uci"


class PeerError(ControlOneError):
    """The other node did something wrong: broke the protocol, answered nonsense, was too late."""

    code = "peer"


class RefusedError(ControlOneError):
    """A request is understood and refused; the text is the reason shown to the person."""

    code = "refused"


class TrustError(ControlOneError):
    """A key, a pin or the secret does not fit."""

    code = "trust"


class ServiceError(ControlOneError):
    """A local service could not be started, stopped or asked."""

    code = "service"


class LabError(ControlOneError):
    """The lab could not build what was asked on this machine."""

    code = "lab"
