"""The small commands of a lab node and the command line of the lab: what they decide."""

from __future__ import annotations

import pytest

from controlone_ha.lab.command import parser
from controlone_ha.lab.reload_command import changed
from controlone_ha.lab.shims import all_shims


def test_only_files_that_were_known_and_differ_count_as_changed():
    before = {"ha": "1", "server": "1"}
    assert changed(before, {"ha": "2", "server": "1", "new": "1"}) == ["ha"]


def test_a_deleted_file_is_no_change():
    assert changed({"ha": "1", "server": "1"}, {"server": "1"}) == []


def test_G1_a_node_has_the_commands_of_the_specification():
    assert {"uci", "ha", "service", "reload_config"} <= set(all_shims())


def test_a_shim_runs_from_any_environment():
    script = all_shims()["ha"]
    assert script.startswith("#!/bin/sh\n")
    assert "export PYTHONPATH=" in script
    assert script.rstrip().endswith('-m controlone_ha.control.command "$@"')


def test_exec_passes_the_options_of_the_program_on():
    options = parser().parse_args(["exec", "m1", "ha", "status", "--json"])
    assert (options.node, options.command) == ("m1", ["ha", "status", "--json"])


def test_an_action_is_required():
    with pytest.raises(SystemExit) as exit_info:
        parser().parse_args([])
    assert exit_info.value.code == 2
