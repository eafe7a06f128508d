"""The pages of System → HA in a real browser, with a real `ha` behind the real rpcd plug-in.

Screenshots are kept in ``build/screenshots``. ``CONTROLONE_LUCI_ROOT`` names the ``htdocs`` of a
real LuCI to run the same tests with.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from controlone_ha.config.schema import SCHEMA
from controlone_ha.lab.cluster import Lab
from scripts.packages.po2lmo import messages
from tests.cluster.support import PairedLab, ha, standard_nodes, status, wait_until
from tests.package.luci_host import OVERLAY, PORTUGUESE, LuciHost, real_luci
from tests.package.scratch import CHECKOUT

pytestmark = [pytest.mark.package, pytest.mark.timeout(300)]

SHOTS = CHECKOUT / "build/screenshots"
VIEWS = ("overview", "calls", "sync", "trust", "settings")
PHONE = (360, 740)


@pytest.fixture(scope="module")
def lab(sshd_path: Path, asterisk: object) -> Iterator[Lab]:
    with PairedLab(standard_nodes()) as made:
        wait_until(made, lambda: status(made.node("s1"))["state"] == "standby", "s1 is settled")
        yield made


@pytest.fixture(scope="module")
def host(lab: Lab) -> Iterator[LuciHost]:
    with LuciHost(lab.node("s1"), sys.executable) as made:
        yield made


class Page:
    """One page in the browser."""

    def __init__(self, browser: webdriver.Chrome, lab: Lab, host: LuciHost, view: str) -> None:
        self.browser, self.lab, self.view = browser, lab, view
        self.host = host

    def open(self, language: str = "en", size: tuple[int, int] = (1280, 1000)) -> Page:
        width, height = size
        self.browser.set_window_size(width, height)
        # A phone is a small screen, not only a small window: LuCI's theme asks for that.
        screen = {"screenWidth": width, "screenHeight": height, "width": width, "height": height}
        self.browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {**screen, "deviceScaleFactor": 1, "mobile": False},
        )
        self.browser.get(f"{self.host.url}/view/controlone/{self.view}?{language}")
        self.wait("h2, h3")
        return self

    def find(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def wait(self, selector: str, text: str = "") -> WebElement:
        """Return the first such element that has the text, once it is there."""

        def look() -> WebElement | None:
            try:
                return next((e for e in self.find(selector) if text in e.text), None)
            except (StaleElementReferenceException, WebDriverException):
                return None  # the page renewed itself meanwhile

        try:
            return wait_until(self.lab, look, f"{selector} {text!r} on {self.view}", limit=30.0)
        except AssertionError as error:
            body = self.find("body")[0].text
            logged = self.browser.get_log("browser")
            raise AssertionError(f"{error}\n{body}\n{logged}") from error

    def press(self, selector: str, text: str = "") -> None:
        """Press a button; the page may renew itself between finding and pressing."""

        def pressed() -> bool:
            try:
                self.browser.execute_script("arguments[0].click()", self.wait(selector, text))
            except StaleElementReferenceException:
                return False
            return True

        wait_until(self.lab, pressed, f"{selector} can be pressed", limit=30.0)

    def shoot(self, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.browser.save_screenshot(str(SHOTS / f"{name}.png"))

    @property
    def text(self) -> str:
        return self.find("body")[0].text


@pytest.fixture
def overview(browser: webdriver.Chrome, lab: Lab, host: LuciHost) -> Page:
    return Page(browser, lab, host, "overview")


def test_G3_the_picture_shows_the_whole_cluster_from_any_node(overview: Page) -> None:
    overview.open()
    for name, site, state in (("m1", "site1", "active"), ("p1", "site2", "passive")):
        overview.wait(f"[data-site={site}] [data-node={name}][data-state={state}]", name)
    assert len(overview.find("[data-node]")) == 5
    assert "link: up" in overview.wait("[data-node=m2]").text
    overview.shoot("overview")
    overview.press("[data-plan=m1]")
    assert "s1: standby → active" in overview.wait("#ha-plan").text
    overview.press("[data-close]")


def test_G3_C2_a_master_dies_and_the_page_tells_who_serves_and_why(
    overview: Page, lab: Lab
) -> None:
    overview.open()
    overview.wait("[data-node=m1][data-state=active]")
    lab.node("m1").kill()
    try:
        overview.wait("[data-node=s1][data-state=active]", "active")
        overview.wait("#ha-node", "m1")
        overview.shoot("failover")
    finally:
        lab.boot("m1")
    overview.wait("[data-node=s1][data-state=standby]", "standby")
    overview.wait("#ha-history", "m1")


def test_G4_orders_are_asked_about_first_and_change_the_node(overview: Page, lab: Lab) -> None:
    overview.open()
    overview.press("[data-order=force_active]")
    assert status(lab.node("s1"))["forced"] is None
    overview.press("[data-confirm]")
    overview.wait("[data-node=s1][data-state=active]")
    assert status(lab.node("s1"))["forced"] == "active"
    overview.press("[data-order=resume]")
    overview.press("[data-confirm]")
    overview.wait("[data-node=s1][data-state=standby]")
    assert status(lab.node("s1"))["forced"] is None


def test_S7_synchronisation_is_forced_and_what_lost_a_conflict_is_brought_back(
    browser: webdriver.Chrome, lab: Lab, host: LuciHost
) -> None:
    path = "/etc/controlone.d/sounds/hold.wav"
    put = f"mkdir -p {path.rpartition('/')[0]} && hostname >{path}"
    lab.partition()
    try:
        for name in ("s1", "m2"):
            lab.node(name).exec(["sh", "-c", put], check=True)
            wait_until(lab, lambda name=name: sounds(lab, name), f"{name} has seen it")  # type: ignore[misc]
    finally:
        lab.heal()
    page = Page(browser, lab, host, "sync").open()
    page.press("[data-sync=all]")
    page.wait("#ha-progress-table", "in sync")
    page.wait("#ha-conflicts", "hold.wav")
    page.shoot("synchronisation")
    assert content(lab, path) == "m2"
    page.press("[data-conflict-diff]")
    assert "s1" in page.wait("#ha-conflict", "m2").text
    page.press("[data-close]")
    page.press("[data-restore]")
    page.press("[data-confirm]")
    wait_until(lab, lambda: content(lab, path) == "s1", "it is restored")
    page.press("[data-diff=m1]")
    page.wait("#ha-diff")


def sounds(lab: Lab, name: str) -> int:
    """Return how many sounds the node has by its own count."""
    found = (item for item in status(lab.node(name))["sync"] if item["item"] == "sounds")
    return int(next(found)["present"])


def content(lab: Lab, path: str) -> str:
    """Return what the file is on the node whose pages are shown."""
    return lab.node("s1").exec(["cat", path], check=True).stdout.strip()


def test_L1_calls_and_takeovers_have_a_page(
    browser: webdriver.Chrome, lab: Lab, host: LuciHost
) -> None:
    page = Page(browser, lab, host, "calls").open()
    page.wait("#ha-calls", "There is no call.")
    page.wait("#ha-takeovers")
    page.shoot("calls")


def test_X1_keys_consoles_and_what_was_done_have_a_page(
    browser: webdriver.Chrome, lab: Lab, host: LuciHost
) -> None:
    page = Page(browser, lab, host, "trust").open()
    for name in ("m1", "m2", "s2", "p1"):
        page.wait("#ha-pins", name)
    key = status(lab.node("s1"))["fingerprint"]
    page.wait("#ha-own-keys", key)
    page.wait("#ha-consoles")
    page.wait("#ha-audit", "s1")
    page.shoot("trust")


def test_X1_a_node_is_paired_from_the_page_once_a_person_has_compared_the_fingerprint(
    browser: webdriver.Chrome, lab: Lab, host: LuciHost
) -> None:
    other = json.loads(ha(lab.node("p1"), "pair-export", "--json").stdout)
    assert ha(lab.node("s1"), "unpair", "p1", "--here").returncode == 0
    page = Page(browser, lab, host, "trust").open()
    page.press("[data-pair]")
    own = json.loads(ha(lab.node("s1"), "pair-export", "--json").stdout)
    assert own["fingerprint"] in page.wait(".modal", "Offer of this node").text
    assert page.wait("#ha-own-offer").get_attribute("value") == own["offer"]
    page.wait("#ha-offer").send_keys(other["offer"].replace("controlone", "contrelone"))
    page.press("[data-take-offer]")
    page.wait(".alert-message.danger")
    field = page.wait("#ha-offer")
    field.clear()
    field.send_keys(other["offer"])
    page.press("[data-take-offer]")
    assert "p1" in page.wait(".modal", other["fingerprint"]).text
    pins = json.loads(ha(lab.node("s1"), "keys", "--json").stdout)["pinned"]
    assert "p1" not in {pin["name"] for pin in pins}  # nothing before the person's word
    page.press("[data-confirm]")
    page.wait(".alert-message", "p1 is paired here.")
    wait_until(
        lab,
        lambda: (
            "p1"
            in {p["name"] for p in status(lab.node("s1"))["peers"] if p["link"]["state"] == "up"}
        ),
        "s1 and p1 are linked",
    )


@pytest.fixture
def settings(browser: webdriver.Chrome, lab: Lab, host: LuciHost) -> Page:
    return Page(browser, lab, host, "settings").open()


def test_G1_every_option_that_the_daemon_reads_is_in_the_form(settings: Page) -> None:
    settings.wait("[data-name=secret]")
    shown = {item.get_attribute("data-name") for item in settings.find("[data-name]")}
    rows = [row for row in SCHEMA if (row.package, row.section) == ("ha", "ha")]
    assert {row.name for row in rows} <= shown
    settings.shoot("settings")


def test_X2_the_secret_is_never_shown_and_stays_when_left_empty(settings: Page, lab: Lab) -> None:
    secret = lab.node("s1").exec(["uci", "get", "ha.default.secret"], check=True).stdout.strip()
    settings.wait("[data-name=secret]")
    shown = settings.browser.page_source + str(
        [item.get_attribute("value") for item in settings.find("[data-name=secret]")]
    )
    assert secret not in shown


@pytest.mark.skipif(real_luci() is not None, reason="LuCI's own fields have other attributes")
class TestForm:
    def type(self, settings: Page, name: str, value: str) -> None:
        field = settings.wait(f"[data-name={name}]")
        field.clear()
        field.send_keys(value)
        settings.press(".cbi-button-apply")

    def test_G1_a_wrong_value_is_refused_in_the_words_of_the_schema(
        self, settings: Page, lab: Lab
    ) -> None:
        node = lab.node("s1")
        applied = settings.host.applied
        before = status(node)["priority"], node.service_status("ha")["pid"]
        self.type(settings, "priority", "many")
        refusal = "got 'many', expected a whole number from 0 to 1000"
        assert refusal in settings.wait("#notes .danger").text
        assert settings.host.applied == applied
        assert "many" not in node.exec(["uci", "-q", "get", "ha.default.priority"]).stdout
        assert (status(node)["priority"], node.service_status("ha")["pid"]) == before

    def test_G2_save_and_apply_reaches_the_running_daemon(self, settings: Page, lab: Lab) -> None:
        node = lab.node("s1")
        secret = node.exec(["uci", "get", "ha.default.secret"], check=True).stdout
        self.type(settings, "priority", "177")
        wait_until(lab, lambda: status(node)["priority"] == 177, "`ha` has the new priority")
        assert node.exec(["uci", "get", "ha.default.secret"], check=True).stdout == secret
        assert ha(node, "status").returncode == 0


@pytest.mark.parametrize("view", VIEWS)
def test_G5_every_page_fits_a_phone_in_both_languages(
    browser: webdriver.Chrome, lab: Lab, host: LuciHost, view: str
) -> None:
    page = Page(browser, lab, host, view).open("pt-br", PHONE)
    page.wait("h3")
    width = browser.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert width[0] <= width[1], width
    page.shoot(f"phone-{view}")


def test_every_text_of_the_pages_is_translated() -> None:
    translated = messages(PORTUGUESE.read_text(encoding="utf-8"))
    resources = OVERLAY / "luci-static/resources"
    for file in sorted(resources.rglob("*.js")):
        for text in re.findall(r"_\('((?:[^'\\]|\\.)*)'\)", file.read_text()):
            assert translated.get(text), f"{file.name}: {text!r} has no translation"
