"""paramiko without its companions: what is left out, what stays right, what comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from typing import Any

REPORT = """
import json, sys
{before}
from controlone_ha.peers.lean import load_paramiko
load_paramiko()
load_paramiko()
import paramiko
found = {{
    "version": paramiko.__version__,
    "without": [name for name in ("invoke", "unittest.mock", "zipfile") if name in sys.modules],
    "metadata": "importlib.metadata" in sys.modules,
}}
from importlib import metadata
found["real"] = metadata.version("paramiko")
found["distribution"] = metadata.distribution("paramiko").metadata["Name"]
try:
    import invoke
    found["invoke"] = invoke.__name__
except ImportError:
    found["invoke"] = None
print(json.dumps(found))
"""


def report(before: str = "") -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", REPORT.format(before=before)],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_paramiko_is_loaded_without_what_it_does_not_need_and_knows_its_version() -> None:
    found = report()
    assert found["without"] == []
    assert found["version"] == metadata.version("paramiko")


def test_afterwards_the_real_modules_can_be_had() -> None:
    found = report()
    assert found["metadata"] is False
    assert found["real"] == found["version"]
    assert found["distribution"] == "paramiko"
    assert found["invoke"] in ("invoke", None)


def test_modules_that_were_loaded_before_stay_as_they_are() -> None:
    found = report(before="import importlib.metadata")
    assert found["metadata"] is True
    assert found["version"] == found["real"]
