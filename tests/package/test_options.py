"""G1: every option is shipped, validated, read, documented and in the form: one test compares.

The form is the real page in a real browser, made by the real plug-in; only the sections that it is
shown for (one of each type) are this test's.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from controlone_ha.config.check import LOADERS
from controlone_ha.config.document import README_MARKS, readme_table
from controlone_ha.config.kinds import Kind, OptionRow
from controlone_ha.config.schema import PACKAGES, SCHEMA, section_types
from controlone_ha.config.validate import expectation
from controlone_ha.control import options_pt
from controlone_ha.errors import ConfigError
from tests.package.luci_host import PLUGIN, LuciHost, real_luci
from tests.package.scratch import CHECKOUT
from tests.waiting import wait_for

pytestmark = [pytest.mark.package, pytest.mark.timeout(120)]

Options = dict[str, set[str]]
"""Options of a package by section type."""

SAMPLES = {
    Kind.TEXT: "31", Kind.SECRET: "another secret", Kind.NAME: "other", Kind.PORT: "4242",
    Kind.HOST: "192.0.2.9", Kind.HOSTS: "192.0.2.7 192.0.2.9", Kind.NAMES: "pstn second",
    Kind.PATH: "/some/where", Kind.PATHS: "/some /where", Kind.PATTERNS: "*.tmp",
}  # fmt: skip
"""A good value of each kind that is no default."""

NEEDED = {
    "ha": "config ha 'default'\n\toption role 'master'\n\toption secret 'a long secret'\n"
    "\toption peers '192.0.2.1 s1'\n",
    "server": "config server 'default'\n",
    "console": "config console 'default'\n\toption server '192.0.2.1'\n",
    "conference": "config conference 'default'\n\n"
    "config gateway 'pstn'\n\toption host '192.0.2.3'\n\n"
    "config gateway 'second'\n\toption host '192.0.2.4'\n",
}
EXAMPLES = {
    "peer": "config peer 's1'\n",
    "limits": "config limits 'limits'\n",
    "item": "config item 'more'\n",
    "queue": "config queue '190'\n",
    "gateway": "config gateway 'third'\n\toption host '192.0.2.5'\n",
    "route": "config route 'all'\n\toption gateways 'second'\n",
}


def of_schema(package: str) -> Options:
    return {
        section: {row.name for row in SCHEMA if (row.package, row.section) == (package, section)}
        for section in section_types(package)
    }


def shipped(package: str) -> Options:
    """The options in /etc/config as the package installs it, those in comments included."""
    found: Options = {}
    section = ""
    for line in (CHECKOUT / "files/etc/config" / package).read_text().splitlines():
        words = line.lstrip("#\t ").split()
        if re.match(r"#?config ", line):
            section = words[1]
            found.setdefault(section, set())
        elif re.match(r"\t#?(option|list) ", line):
            found[section].add(words[1])
    return found


def documented(package: str) -> Options:
    """The options in docs/options.md."""
    text = (CHECKOUT / "docs/options.md").read_text()
    part = text.split(f"\n## /etc/config/{package}\n")[1].split("\n## ")[0]
    return {
        re.search(r"config (\w+)", item)[1]: set(re.findall(r"^\| `(\w+)` \|", item, re.M))  # type: ignore[index]
        for item in part.split("\n### ")[1:]
    }


def validated_by_procd(package: str) -> Options:
    """The options that the init scripts have validated (`uci_load_validate`)."""
    text = (CHECKOUT / "files/usr/share/controlone" / f"{package}.sh").read_text()
    return {
        found[1]: set(re.findall(r"'(\w+):", found[2]))
        for found in re.finditer(rf"^validate_{package}_(\w+)\(\) {{\n(.*?)^}}", text, re.M | re.S)
    }


def test_G1_every_option_is_shipped_validated_documented_and_in_the_form(
    browser: webdriver.Chrome, host: LuciHost
) -> None:
    shown = form(browser, host)
    for package in PACKAGES:
        options = of_schema(package)
        assert shipped(package) == options, f"/etc/config/{package}"
        assert documented(package) == options, "docs/options.md"
        assert validated_by_procd(package) == options, f"/usr/share/controlone/{package}.sh"
        assert shown[package] == options, f"the form of {package}"
    head, tail = README_MARKS
    readme = (CHECKOUT / "README.md").read_text()
    assert readme.partition(head)[2].partition(tail)[0].strip() == readme_table().strip()


# -- read by the back end --------------------------------------------------------------------------


def sample(row: OptionRow) -> str:
    """A good value of an option that is not its default."""
    if row.kind is Kind.CHOICE:
        return next(choice for choice in reversed(row.choices) if choice != row.default)
    if row.kind is Kind.BOOLEAN:
        return "0" if row.default == "1" else "1"
    if row.minimum is not None and row.maximum is not None:
        return f"{row.maximum if row.default != f'{row.maximum:g}' else row.minimum:.15g}"
    return SAMPLES[row.kind]


def edited(row: OptionRow) -> tuple[str, str]:
    """A package's file without the option and with it."""
    text = NEEDED[row.package]
    if row.section != row.package:
        text += "\n" + EXAMPLES[row.section]
    head, line, rest = text.partition(f"config {row.section} '")
    if row.section == "gateway":
        head, line, rest = text.rpartition(f"config {row.section} '")
    name, end, body = rest.partition("\n")
    own = re.sub(rf"^\toption {row.name} .*\n", "", body, count=1, flags=re.M)
    return text, f"{head}{line}{name}{end}\toption {row.name} '{sample(row)}'\n{own}"


def words_of_the_code() -> set[str]:
    """Every attribute and every constant text in the code that is not about settings as such."""
    found: set[str] = set()
    for file in (CHECKOUT / "controlone_ha").rglob("*.py"):
        if file.relative_to(CHECKOUT).parts[1] in ("config", "lab"):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.keyword) and node.arg:
                found.add(node.arg)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_G1_every_option_reaches_the_daemon_that_reads_it(tmp_path: Path) -> None:
    known = words_of_the_code()
    for row in SCHEMA:
        label = f"{row.package}.{row.section}.{row.name}"
        loaded = []
        for text in edited(row):
            (tmp_path / row.package).write_text(text)
            loaded.append(LOADERS[row.package](tmp_path))
        assert loaded[0] != loaded[1], f"{label} changes nothing"
        names = {row.name, f"{row.name}_policy", row.name.removesuffix("_duration")}
        assert names & known, f"{label} is loaded and never used"


def test_every_text_of_the_options_is_translated() -> None:
    for row in SCHEMA:
        assert row.text in options_pt.TEXTS, row.text
        english = expectation(row)
        if not row.choices:
            assert options_pt.expected_of(row, english) != english, english


# -- the form --------------------------------------------------------------------------------------


class Here:
    """In place of a node: this machine, whose settings are the example of every section."""

    def __init__(self, config_dir: Path) -> None:
        self.config_dir = config_dir

    def exec(self, words: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        assert words[0] == str(PLUGIN), f"the form needs nothing else of a node: {words}"
        environment = {**more.pop("env"), "UCI_CONFIG_DIR": str(self.config_dir)}
        return subprocess.run(words, capture_output=True, text=True, env=environment, **more)

    def path(self, name: str) -> Path:
        return self.config_dir / Path(name).name


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LuciHost]:
    for package, text in NEEDED.items():
        more = [EXAMPLES[section] for section in section_types(package) if section in EXAMPLES]
        (tmp_path / package).write_text("\n".join([text, *more]))
    with LuciHost(Here(tmp_path), sys.executable) as made:  # type: ignore[arg-type]
        yield made


def form(browser: webdriver.Chrome, host: LuciHost) -> dict[str, Options]:
    """What the page of settings shows: package -> section type -> options."""
    browser.set_window_size(1280, 1000)
    browser.get(f"{host.url}/view/controlone/settings?en")
    wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "[data-name]"), 20.0)
    found: dict[str, Options] = {}
    for row in json.loads(browser.execute_script(FIELDS)):
        found.setdefault(row["config"], {}).setdefault(row["type"], set()).add(row["name"])
    return found


FIELDS = """
return JSON.stringify(Array.from(document.querySelectorAll('[data-name]')).map(function(field) {
	var config = field.closest('.cbi-map').id.replace('cbi-', '');
	var type = field.closest('.cbi-section').id.replace('cbi-' + config + '-', '');
	return { config: config, type: type, name: field.getAttribute('data-name') };
}));
"""
"""Ids are those that LuCI's form.Map and form.TypedSection give."""


def test_the_form_speaks_portuguese(browser: webdriver.Chrome, host: LuciHost) -> None:
    browser.get(f"{host.url}/view/controlone/settings?pt-br")
    wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "[data-name]"), 20.0)
    shown = browser.find_element(By.TAG_NAME, "body").text
    for text in ("os outros nós que este monitora", "Alta disponibilidade", "Filas", "Rotas"):
        assert text in shown
    for row in SCHEMA:
        assert row.text not in shown, row.text


def test_a_package_that_is_not_on_the_device_has_no_form(
    browser: webdriver.Chrome, host: LuciHost, tmp_path: Path
) -> None:
    (tmp_path / "console").unlink()
    assert set(form(browser, host)) == {"ha", "server", "conference"}


@pytest.mark.skipif(real_luci() is not None, reason="LuCI's own fields have other attributes")
@pytest.mark.parametrize(
    ("package", "option", "value", "expected"),
    [
        ("ha", "peers", "10.0.0.1, a/b", "got 'a/b', expected host names or IP addresses"),
        ("ha", "peers", "s1, s1", "got 's1, s1', expected every item once"),
        ("ha", "interval", "0.1", "got '0.1', expected a number of seconds from 0.5 to 3600"),
        ("ha", "failures", "1.5", "got '1.5', expected a whole number from 1 to 100"),
        ("ha", "address", "-x", "got '-x', expected a host name or an IP address"),
        ("console", "port", "70000", "got '70000', expected a port from 1 to 65535"),
        ("conference", "recordings", "here", "got 'here', expected an absolute path"),
    ],
)
def test_G1_the_form_refuses_in_the_very_words_of_the_schema(
    browser: webdriver.Chrome, host: LuciHost, tmp_path: Path,
    package: str, option: str, value: str, expected: str,
) -> None:  # fmt: skip
    form(browser, host)
    section = f"#cbi-{package} [data-section-id=default]"
    field = browser.find_element(By.CSS_SELECTOR, f"{section} [data-name={option}]")
    field.clear()
    field.send_keys(value)
    browser.find_element(By.CSS_SELECTOR, ".cbi-button-apply").click()
    wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "#notes .danger"), 10.0)
    assert expected in browser.find_element(By.CSS_SELECTOR, "#notes .danger").text
    text = re.sub(rf"\n\toption {option} .*", "", NEEDED[package], count=1)
    line = f" 'default'\n\toption {option} '{value}'\n"
    (tmp_path / package).write_text(text.replace(" 'default'\n", line, 1))
    with pytest.raises(ConfigError, match=re.escape(expected)):
        LOADERS[package](tmp_path)
