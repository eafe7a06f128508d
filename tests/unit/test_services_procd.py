"""What `ubus call service list` says, in procd's own JSON."""

from __future__ import annotations

import json

import pytest

from controlone_ha.errors import ServiceError
from controlone_ha.services.procd import parse_service_list

RUNNING = """\
{
	"server": {
		"instances": {
			"instance1": {
				"running": true,
				"pid": 1876,
				"command": [
					"\\/usr\\/bin\\/python3",
					"-m",
					"controlone_ha.server"
				],
				"term_timeout": 5,
				"respawn": {
					"threshold": 3600,
					"timeout": 5,
					"retry": 0
				}
			}
		}
	}
}
"""


def one(**instance: object) -> str:
    return json.dumps({"server": {"instances": {"instance1": instance}}})


def test_a_running_instance_has_its_pid():
    status = parse_service_list(RUNNING, "server")
    assert status is not None
    assert status.running
    assert status.pid == 1876


def test_an_unknown_service_is_an_empty_object():
    assert parse_service_list("{\n}\n", "server") is None


def test_a_service_without_instances_is_off():
    status = parse_service_list('{"server": {"instances": {}}}', "server")
    assert status is not None
    assert not status.running
    status = parse_service_list('{"server": {}}', "server")
    assert status is not None
    assert not status.running


@pytest.mark.parametrize(
    ("code", "detail"), [(1, "exit code 1"), (137, "killed by SIGKILL"), (0, "exit code 0")]
)
def test_an_ended_instance_tells_how(code, detail):
    status = parse_service_list(one(running=False, command=["x"], exit_code=code), "server")
    assert status is not None
    assert not status.running
    assert status.pid is None
    assert status.detail == detail


def test_a_service_with_a_dead_instance_does_not_run_but_keeps_the_pid_of_the_living_one():
    text = json.dumps(
        {
            "conference": {
                "instances": {
                    "conference": {"running": True, "pid": 7},
                    "asterisk": {"running": False, "exit_code": 1},
                }
            }
        }
    )
    status = parse_service_list(text, "conference")
    assert status is not None
    assert not status.running
    assert status.pid == 7
    assert status.detail == "exit code 1"


@pytest.mark.parametrize("text", ["Failed to connect", "[]", '{"server": 3}', one(running=True)])
def test_what_procd_never_prints_is_an_error(text):
    with pytest.raises(ServiceError, match="not understood"):
        parse_service_list(text, "server")
