"""Keys, pins, authorized_keys lines and what is derived from the secret. Files in a temporary
directory are the only I/O."""

from __future__ import annotations

import os
import py_compile
import ssl
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from controlone_ha.errors import TrustError
from controlone_ha.paths import NodePaths, node_paths
from controlone_ha.peers import authorized, bridge, keys, secret
from controlone_ha.peers.pins import Pin, is_node_name, merge_pins, pin_from_json
from controlone_ha.peers.trust import TrustStore


def paths_in(directory: Path) -> NodePaths:
    return node_paths(
        {
            "CONTROLONE_STATE_DIR": str(directory / "state"),
            "CONTROLONE_RUN_DIR": str(directory / "run"),
        }
    )


@pytest.fixture(scope="module")
def pins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pin]:
    """Real keys and certificates of four nodes, made once."""
    made = {}
    for name in ("alfa", "beta", "gama", "delta"):
        identity = keys.ensure_identity(paths_in(tmp_path_factory.mktemp(name)), name)
        made[name] = Pin(
            name=name,
            public_key=identity.public_key,
            certificate=identity.certificate,
            host_keys=(identity.public_key,),
            addresses=(f"{name}.example", "192.0.2.1"),
        )
    return made


class TestIdentity:
    def test_X1_the_key_is_rsa_2048_private_and_stays_the_same(self, tmp_path: Path) -> None:
        paths = paths_in(tmp_path)
        first = keys.ensure_identity(paths, "alfa")
        bytes_before = paths.key_file.read_bytes(), paths.certificate_file.read_bytes()
        again = keys.ensure_identity(paths, "renamed")
        assert first == again == keys.load_identity(paths)
        assert bytes_before == (paths.key_file.read_bytes(), paths.certificate_file.read_bytes())
        assert stat.S_IMODE(paths.key_file.stat().st_mode) == 0o600
        assert stat.S_IMODE(paths.state_dir.stat().st_mode) == 0o700
        listed = subprocess.run(
            ["ssh-keygen", "-l", "-f", str(paths.key_file)], capture_output=True, text=True
        ).stdout.split()
        assert listed[0] == "2048"
        assert listed[1] == first.key_fingerprint
        assert listed[-1] == "(RSA)"

    def test_the_certificate_never_expires_and_serves_both_ends_of_tls(
        self, tmp_path: Path
    ) -> None:
        paths = paths_in(tmp_path)
        identity = keys.ensure_identity(paths, "alfa")
        server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client_side.check_hostname = False
        for context in (server_side, client_side):
            context.load_cert_chain(identity.certificate_file, identity.key_file)
            context.load_verify_locations(cadata=identity.certificate)
            context.verify_mode = ssl.CERT_REQUIRED
            context.verify_flags |= ssl.VERIFY_X509_STRICT
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = server_side.wrap_bio(to_server, to_client, server_side=True)
        client = client_side.wrap_bio(to_client, to_server)
        for _ in range(4):
            for end in (client, server):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    pass
        got = client.getpeercert(binary_form=True)
        assert got is not None
        assert (
            got
            == server.getpeercert(binary_form=True)
            == keys.certificate_der(identity.certificate)
        )
        told = ssl._ssl._test_decode_cert(str(identity.certificate_file))  # type: ignore[attr-defined]
        assert told["notBefore"].endswith("1970 GMT")
        assert told["notAfter"].endswith("9999 GMT")

    def test_concurrent_first_starts_agree_on_one_key(self, tmp_path: Path) -> None:
        paths = paths_in(tmp_path)
        found: list[keys.Identity] = []
        threads = [
            threading.Thread(target=lambda: found.append(keys.ensure_identity(paths, "alfa")))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert len(set(found)) == 1

    @pytest.mark.parametrize("content", [b"", b"rubbish", b"-----BEGIN RSA PRIVATE KEY-----\n"])
    def test_a_broken_key_is_an_error_and_is_not_replaced(
        self, tmp_path: Path, content: bytes
    ) -> None:
        paths = paths_in(tmp_path)
        paths.state_dir.mkdir()
        paths.key_file.write_bytes(content)
        with pytest.raises(TrustError, match=r"node\.key"):
            keys.ensure_identity(paths, "alfa")
        assert paths.key_file.read_bytes() == content

    def test_a_certificate_of_another_key_is_an_error(self, tmp_path: Path) -> None:
        paths, other = paths_in(tmp_path), paths_in(tmp_path / "other")
        (tmp_path / "other").mkdir()
        keys.ensure_identity(paths, "alfa")
        keys.ensure_identity(other, "beta")
        paths.certificate_file.write_bytes(other.certificate_file.read_bytes())
        with pytest.raises(TrustError, match="is not of the key"):
            keys.load_identity(paths)

    def test_a_world_readable_key_is_made_private_again(self, tmp_path: Path) -> None:
        paths = paths_in(tmp_path)
        keys.ensure_identity(paths, "alfa")
        paths.key_file.chmod(0o644)
        keys.ensure_identity(paths, "alfa")
        assert stat.S_IMODE(paths.key_file.stat().st_mode) == 0o600

    @pytest.mark.parametrize(
        "line", ["", "ssh-rsa", "ssh-rsa !!!!", "ssh-ed25519 AAAAB3NzaC1yc2E=", "ssh-rsa AAAA"]
    )
    def test_what_is_not_a_public_key_has_no_fingerprint(self, line: str) -> None:
        with pytest.raises(TrustError):
            keys.ssh_fingerprint(line)


class TestPins:
    def test_X1_pins_survive_a_round_trip_through_a_private_file(
        self, tmp_path: Path, pins: dict[str, Pin]
    ) -> None:
        store = TrustStore(tmp_path / "state" / "pins.json", now=lambda: 0.0)
        assert store.pins() == {}
        assert store.pin(pins["alfa"]) is None
        store.pin(pins["beta"])
        read = TrustStore(store.path).pins()
        assert read["alfa"] == replace(pins["alfa"], added="1970-01-01T00:00:00Z")
        assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
        assert "PRIVATE" not in store.path.read_text()

    def test_a_pin_written_by_another_process_is_noticed(
        self, tmp_path: Path, pins: dict[str, Pin]
    ) -> None:
        here, there = TrustStore(tmp_path / "pins.json"), TrustStore(tmp_path / "pins.json")
        assert here.pins() == {}
        there.pin(pins["alfa"])
        assert here.changed()
        assert set(here.pins()) == {"alfa"}
        assert not here.changed()

    def test_nodes_are_found_by_name_and_by_an_address_that_only_one_has(
        self, tmp_path: Path, pins: dict[str, Pin]
    ) -> None:
        store = TrustStore(tmp_path / "pins.json")
        store.pin(pins["alfa"])
        store.pin(pins["beta"])
        assert store.find("alfa") == store.find("alfa.example")
        assert store.find("192.0.2.1") is None, "two nodes have it"
        assert store.certificate_sha256("beta") == pins["beta"].certificate_sha256
        assert store.certificate_sha256("nobody") is None

    def test_unpinned_is_forgotten(self, tmp_path: Path, pins: dict[str, Pin]) -> None:
        store = TrustStore(tmp_path / "pins.json")
        store.pin(pins["alfa"])
        assert store.unpin("alfa")
        assert not store.unpin("alfa")
        assert TrustStore(store.path).pins() == {}

    def test_X1_who_was_unpinned_is_not_introduced_again_but_can_be_paired(
        self, tmp_path: Path, pins: dict[str, Pin]
    ) -> None:
        store = TrustStore(tmp_path / "pins.json")
        for name in ("beta", "gama"):
            store.pin(pins[name])
        store.unpin("gama")

        def introduced(by: str) -> tuple[str, ...]:
            return store.merge(
                [pins["gama"], pins["delta"]],
                own_name="alfa",
                own_key=pins["alfa"].public_key,
                introducer=by,
            ).added

        assert introduced("gama") == (), "it may not introduce itself or others either"
        assert introduced("beta") == ("delta",)
        store.pin(pins["gama"])
        assert set(store.pins()) == {"beta", "gama", "delta"}

    def test_one_key_cannot_have_two_names(self, tmp_path: Path, pins: dict[str, Pin]) -> None:
        store = TrustStore(tmp_path / "pins.json")
        store.pin(pins["alfa"])
        with pytest.raises(TrustError, match="already as alfa"):
            store.pin(replace(pins["alfa"], name="other"))

    @pytest.mark.parametrize("content", ["", "[]", "{", '{"alfa": 3}', '{"alfa": {}}'])
    def test_a_broken_file_is_an_error_and_never_an_empty_trust(
        self, tmp_path: Path, pins: dict[str, Pin], content: str
    ) -> None:
        path = tmp_path / "pins.json"
        path.write_text(content)
        with pytest.raises(TrustError, match=r"pins\.json"):
            TrustStore(path).pins()
        with pytest.raises(TrustError):
            TrustStore(path).pin(pins["alfa"])
        assert path.read_text() == content

    @pytest.mark.parametrize(
        ("field", "value", "says"),
        [
            ("name", "../etc", "node name"),
            ("name", 'a"b', "node name"),
            ("name", "", "name"),
            ("name", 7, "name"),
            ("public_key", "ssh-rsa AAAA", "type"),
            ("public_key", "x" * 9000, "public_key"),
            ("certificate", "none", "certificate"),
            ("host_keys", ["ssh-rsa"], "public key"),
            ("host_keys", "ssh-rsa", "list"),
            ("addresses", ["a b"], "address"),
            ("addresses", ["a\nb"], "address"),
            ("addresses", ["a"] * 17, "at most 16"),
            ("ssh_port", 0, "ssh_port"),
            ("ssh_port", True, "ssh_port"),
        ],
    )
    def test_a_hostile_offer_is_refused_with_the_field_named(
        self, pins: dict[str, Pin], field: str, value: object, says: str
    ) -> None:
        with pytest.raises(TrustError, match=says):
            pin_from_json({**pins["alfa"].as_json(), field: value})

    def test_X1_a_certificate_of_another_key_is_refused(self, pins: dict[str, Pin]) -> None:
        mixed = {**pins["alfa"].as_json(), "certificate": pins["beta"].certificate}
        with pytest.raises(TrustError, match="not of the node's key"):
            pin_from_json(mixed)

    def test_X1_a_short_rsa_key_is_refused(self, pins: dict[str, Pin], tmp_path: Path) -> None:
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", str(tmp_path / "k")],
            check=True,
        )
        short = (tmp_path / "k.pub").read_text()
        with pytest.raises(TrustError, match="1024 bits"):
            pin_from_json({**pins["alfa"].as_json(), "public_key": short})

    @pytest.mark.parametrize(
        ("name", "valid"),
        [("a", True), ("node-1.site_2", True), ("-a", False), ("a b", False), ("a" * 64, False)],
    )
    def test_names_are_safe_in_commands(self, name: str, valid: bool) -> None:
        assert is_node_name(name) is valid


class TestMerge:
    def merge(self, known: list[Pin], offered: list[Pin], pins: dict[str, Pin], by: str = "beta"):
        return merge_pins(
            {pin.name: pin for pin in known},
            offered,
            own_name="alfa",
            own_key=pins["alfa"].public_key,
            introducer=by,
            now="now",
        )

    def test_an_unknown_node_is_added(self, pins: dict[str, Pin]) -> None:
        merged, result = self.merge([pins["beta"]], [pins["gama"], pins["alfa"]], pins)
        assert merged["gama"] == replace(pins["gama"], added="now")
        assert result.added == ("gama",)
        assert result.conflicts == ()
        assert set(merged) == {"beta", "gama"}

    def test_X1_other_keys_for_a_known_node_change_nothing_and_are_reported(
        self, pins: dict[str, Pin]
    ) -> None:
        impostor = replace(pins["delta"], name="gama")
        known = [pins["beta"], pins["gama"]]
        merged, result = self.merge(known, [impostor], pins)
        assert merged == {pin.name: pin for pin in known}
        ((about, conflict),) = result.conflicts
        assert about == "gama"
        assert pins["delta"].key_fingerprint in conflict
        assert pins["gama"].key_fingerprint in conflict
        assert "ha pair gama" in conflict

    def test_another_key_under_our_own_name_is_reported(self, pins: dict[str, Pin]) -> None:
        _, result = self.merge([pins["beta"]], [replace(pins["delta"], name="alfa")], pins)
        assert "two nodes may have the same name" in result.conflicts[0][1]

    @pytest.mark.parametrize("owner", ["alfa", "beta"])
    def test_a_known_key_under_a_new_name_is_not_added(
        self, pins: dict[str, Pin], owner: str
    ) -> None:
        merged, result = self.merge([pins["beta"]], [replace(pins[owner], name="new")], pins)
        assert set(merged) == {"beta"}
        assert owner in result.conflicts[0][1]

    def test_only_the_node_itself_changes_its_addresses(self, pins: dict[str, Pin]) -> None:
        known = [pins["beta"], pins["gama"]]
        offered = [
            replace(pins["beta"], addresses=("198.51.100.1",)),
            replace(pins["gama"], addresses=("198.51.100.2",)),
        ]
        merged, result = self.merge(known, offered, pins)
        assert merged["beta"].addresses == ("198.51.100.1", "beta.example", "192.0.2.1")
        assert merged["gama"] == pins["gama"]
        assert result.updated == ("beta",)
        again, unchanged = self.merge(list(merged.values()), [merged["beta"]], pins)
        assert again == merged
        assert unchanged.updated == ()

    def test_an_introducer_does_not_change_host_keys(self, pins: dict[str, Pin]) -> None:
        other = replace(pins["beta"], host_keys=(pins["delta"].public_key,))
        merged, _ = self.merge([pins["beta"]], [other], pins)
        assert merged["beta"].host_keys == pins["beta"].host_keys


class TestAuthorizedKeys:
    COMMAND = "/usr/bin/python3 -I -S /usr/lib/bridge.py --socket /run/peer.sock"

    def test_X1_each_peer_gets_one_restricted_line(self, pins: dict[str, Pin]) -> None:
        content = authorized.rendered(b"", {"alfa": pins["alfa"]}, self.COMMAND).decode()
        assert content == (
            f'restrict,command="{self.COMMAND} alfa" {pins["alfa"].public_key} controlone-ha:alfa\n'
        )

    def test_foreign_lines_stay_byte_for_byte(self, pins: dict[str, Pin]) -> None:
        foreign = b"# mine \xff\n\nssh-ed25519 AAAA admin@desk\r\nssh-rsa BBBB no newline"
        content = authorized.rendered(foreign, {"alfa": pins["alfa"]}, self.COMMAND)
        assert content.startswith(foreign + b"\nrestrict,")
        assert authorized.rendered(content, {}, self.COMMAND) == foreign + b"\n"

    def test_lines_of_unpinned_nodes_go(self, pins: dict[str, Pin], tmp_path: Path) -> None:
        path = tmp_path / "ssh" / "authorized_keys"
        both = {name: pins[name] for name in ("alfa", "beta")}
        assert authorized.write(path, both, self.COMMAND)
        assert not authorized.write(path, both, self.COMMAND)
        assert authorized.write(path, {"beta": pins["beta"]}, self.COMMAND)
        assert "controlone-ha:alfa" not in path.read_text()
        assert "controlone-ha:beta" in path.read_text()

    def test_mode_and_links_are_kept(self, pins: dict[str, Pin], tmp_path: Path) -> None:
        real = tmp_path / "real"
        real.write_text("ssh-rsa AAAA me\n")
        real.chmod(0o640)
        (tmp_path / "authorized_keys").symlink_to(real)
        authorized.write(tmp_path / "authorized_keys", {"alfa": pins["alfa"]}, self.COMMAND)
        assert (tmp_path / "authorized_keys").is_symlink()
        assert stat.S_IMODE(real.stat().st_mode) == 0o640
        assert real.read_text().count("\n") == 2

    def test_a_new_file_is_private(self, pins: dict[str, Pin], tmp_path: Path) -> None:
        path = tmp_path / "new" / "authorized_keys"
        authorized.write(path, {"alfa": pins["alfa"]}, self.COMMAND)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_the_bridge_command_runs_this_very_bridge(self, tmp_path: Path) -> None:
        command = authorized.bridge_command(tmp_path / "peer.sock")
        ran = subprocess.run(f"{command} alfa", shell=True, capture_output=True, stdin=-3)
        assert ran.returncode == 3
        assert b"ha is not running" in ran.stdout

    def test_the_bridge_runs_without_its_source_as_on_openwrt(self, tmp_path: Path) -> None:
        compiled = tmp_path / "bridge.pyc"
        py_compile.compile(str(bridge.__file__), cfile=str(compiled), doraise=True)
        command = [sys.executable, "-I", "-S", str(compiled), "--socket", str(tmp_path / "none")]
        ran = subprocess.run([*command, "alfa"], capture_output=True, stdin=subprocess.DEVNULL)
        assert ran.returncode == bridge.EXIT_NO_DAEMON
        assert b'"code":"no_daemon"' in ran.stdout
        assert subprocess.run(command, capture_output=True).returncode == bridge.EXIT_USAGE

    def test_an_unwritable_place_is_told(self, pins: dict[str, Pin], tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(TrustError, match="peers cannot connect"):
            authorized.write(tmp_path / "file" / "authorized_keys", pins, self.COMMAND)


class TestSecret:
    def test_X2_all_nodes_derive_the_same_independent_keys(self) -> None:
        derived = secret.cluster_keys("123456")
        assert derived == secret.cluster_keys("123456")
        assert len({derived.link, derived.node_door, derived.database_password.encode()}) == 3
        assert secret.cluster_keys("123457").link != derived.link
        assert derived.link.hex() == (
            "d39a33241e4405818a1c354ad2c4819681f0ff2149c0df864edea5b3127ebb58"
        ), "a node of another version has to derive the same"
        assert derived.database_password == "FshFdtuFkg-pudbN4ddQ-jAsoIk0z-UHH7ciVUEYKMA"

    def test_X2_an_empty_secret_is_refused(self) -> None:
        with pytest.raises(TrustError, match=r"ha\.default\.secret"):
            secret.cluster_keys("")

    def test_keys_do_not_show_in_logs(self) -> None:
        assert repr(secret.cluster_keys("123456")) == "ClusterKeys(…)"

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("123456", "most common"),
            ("Password", "most common"),
            ("short", "5 characters"),
            ("aaaaaaaaaaaaaaaa", "repeats"),
            ("73910562847391", "digits"),
            ("tundra-Coral-92-vela", None),
        ],
    )
    def test_X2_weak_secrets_are_named(self, text: str, says: str | None) -> None:
        reason = secret.weak_secret_reason(text)
        assert (reason is None) if says is None else (reason is not None and says in reason)


def test_reading_trust_needs_the_standard_library_only(tmp_path: Path) -> None:
    script = (
        "import sys; from controlone_ha.peers import trust, secret, authorized; "
        "print(sorted({'paramiko', 'cryptography', 'pymongo', 'psutil', 'pyroute2'}"
        " & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")
