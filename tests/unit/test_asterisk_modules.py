"""The reduced documentation and modules.conf, on small made-up trees."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

from controlone_ha.conference import asterisk_modules

DOCUMENTATION = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE docs SYSTEM "appdocsxml.dtd">
<docs>
<application name="Dial" language="en_US"><synopsis>Long</synopsis><syntax/></application>
<managerEvent name="Hold" language="en_US"><synopsis>Event</synopsis></managerEvent>
<configInfo name="stasis" language="en_US"><synopsis>Prose</synopsis>
<configFile name="stasis.conf"><configObject name="threadpool"><synopsis>Prose</synopsis>
<configOption name="initial_size" default="5"><synopsis>Prose</synopsis></configOption>
</configObject></configFile></configInfo>
</docs>
"""


def _data_directory(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    (data / "documentation").mkdir(parents=True)
    (data / "sounds").mkdir()
    (data / "documentation" / "core-en_US.xml").write_text(DOCUMENTATION)
    return data


def test_only_names_are_left_and_every_option_keeps_its_place(tmp_path: Path) -> None:
    made = asterisk_modules.reduced_data_directory(_data_directory(tmp_path), tmp_path / "small")
    document = ElementTree.parse(made / "documentation" / "core-en_US.xml").getroot()
    assert [element.tag for element in document] == ["application", "configInfo"]
    assert document[0].get("name") == "Dial"
    option = document.find("configInfo/configFile/configObject/configOption")
    assert option is not None
    assert option.attrib == {"name": "initial_size", "default": "5"}
    assert "Prose" not in ElementTree.tostring(document, encoding="unicode")


def test_everything_but_the_documentation_is_a_link(tmp_path: Path) -> None:
    data = _data_directory(tmp_path)
    made = asterisk_modules.reduced_data_directory(data, tmp_path / "small")
    assert (made / "sounds").resolve() == data / "sounds"
    assert not (made / "documentation").is_symlink()


def test_it_is_made_again_only_when_the_original_has_changed(tmp_path: Path) -> None:
    data = _data_directory(tmp_path)
    made = asterisk_modules.reduced_data_directory(data, tmp_path / "small")
    reduced = made / "documentation" / "core-en_US.xml"
    first = reduced.stat().st_ino
    asterisk_modules.reduced_data_directory(data, tmp_path / "small")
    assert reduced.stat().st_ino == first
    source = data / "documentation" / "core-en_US.xml"
    source.write_text(DOCUMENTATION.replace("Dial", "Queue"))
    os.utime(source, ns=(1, 1))
    asterisk_modules.reduced_data_directory(data, tmp_path / "small")
    assert "Queue" in reduced.read_text()


def test_without_documentation_the_original_directory_is_used(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    assert asterisk_modules.reduced_data_directory(data, tmp_path / "small") == data
    assert not (tmp_path / "small").exists()


def test_modules_that_this_asterisk_lacks_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "chan_pjsip.so").touch()
    text = asterisk_modules.modules_file(tmp_path)
    assert text == "[modules]\nautoload=no\nload=chan_pjsip.so\n"


def test_no_module_is_listed_twice() -> None:
    listed = [*asterisk_modules.MODULES, *asterisk_modules.LATE_MODULES]
    assert len(listed) == len(set(listed))
