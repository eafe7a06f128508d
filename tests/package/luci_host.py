"""A web server that offers the LuCI pages of a lab node, with the node's real rpcd plug-in behind.

The pages are the overlay's. What LuCI itself brings is a stand-in (``luci/``), or, where
``CONTROLONE_LUCI_ROOT`` names its ``htdocs``, the real one. `uci` over ubus is done with the node's
own `uci` command; applying is `uci commit` and, as procd does on rpcd's event, a reload.
"""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from controlone_ha import uci
from controlone_ha.lab.node import LabNode
from scripts.packages.po2lmo import messages, text_hash
from tests.package.scratch import CHECKOUT

HERE = Path(__file__).parent / "luci"
OVERLAY = CHECKOUT / "files/www"
PLUGIN = CHECKOUT / "files/usr/libexec/rpcd/ha"
PORTUGUESE = CHECKOUT / "package/luci-app-controlone-ha/po/pt_BR/controlone-ha.po"
NOT_FOUND = 4
"""What rpcd answers about a configuration that is not there (UBUS_STATUS_NOT_FOUND)."""
KINDS = {".js": "text/javascript", ".css": "text/css", ".html": "text/html; charset=utf-8"}


def real_luci() -> Path | None:
    """Return LuCI's `htdocs` that the environment names, None without one."""
    named = os.environ.get("CONTROLONE_LUCI_ROOT")
    return Path(named) if named else None


class LuciHost:
    """Serves the pages of one node on 127.0.0.1 while it is entered."""

    def __init__(self, node: LabNode, python: str) -> None:
        self.node = node
        self.python = python
        self.applied = 0
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urlsplit(self.path)
                found = host.page(path.path, path.query)
                self.send_response(200 if found else 404)
                kind, content = found or ("text/plain", b"not found")
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                content = json.dumps(host.rpc(json.loads(body))).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> LuciHost:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    # -- pages ---------------------------------------------------------------------------------

    def page(self, path: str, query: str) -> tuple[str, bytes] | None:
        """Return kind and content of a file; ``/VIEW?LANGUAGE`` is the page of a view."""
        if path.startswith("/view/"):
            return self._host_page(path.removeprefix("/view/"), query or "en")
        for root in filter(None, (OVERLAY, real_luci(), HERE)):
            file = root / path.lstrip("/")
            if file.is_file() and file.resolve().is_relative_to(root.resolve()):
                return KINDS.get(file.suffix, "application/octet-stream"), file.read_bytes()
        return None

    def _host_page(self, view: str, language: str) -> tuple[str, bytes]:
        texts = {}
        if language == "pt-br":
            texts = messages(PORTUGUESE.read_text(encoding="utf-8"))
        if real_luci():
            texts = {f"{text_hash(name.encode()):08x}": text for name, text in texts.items()}
        page = (HERE / ("real.html" if real_luci() else "standin.html")).read_text()
        page = page.replace("@VIEW@", view).replace("@LANGUAGE@", language)
        return KINDS[".html"], page.replace("@TRANSLATIONS@", json.dumps(texts)).encode()

    # -- ubus ----------------------------------------------------------------------------------

    def rpc(self, message: Any) -> Any:
        """Answer one request of ubus over HTTP, or a batch."""
        if isinstance(message, list):
            return [self.rpc(item) for item in message]
        _session, name, method, params = message["params"]
        answer = self._call(name, method, {**params})
        result = [0, answer] if answer is not None else [NOT_FOUND]
        return {"jsonrpc": "2.0", "id": message["id"], "result": result}

    def _call(self, name: str, method: str, params: dict[str, Any]) -> Any:
        params.pop("ubus_rpc_session", None)
        if name == "ha":
            return self._plugin(method, params)
        if name == "uci":
            return self._uci(method, params)
        if (name, method) == ("session", "access"):
            return {"access": True}
        return {}

    def _plugin(self, method: str, params: dict[str, Any]) -> Any:
        """As rpcd calls it: the message on stdin, in the node."""
        done = self.node.exec(
            [str(PLUGIN), "call", method],
            env={"CONTROLONE_PYTHON": self.python},
            input=json.dumps({**params, "ubus_rpc_session": "session"}),
            timeout=60.0,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def _uci(self, method: str, params: dict[str, Any]) -> Any:
        config = str(params.get("config", ""))
        if method == "get":
            values = self.values(config)
            return None if values is None else {"values": values}
        if method == "set":
            for option, value in params["values"].items():
                where = f"{config}.{params['section']}.{option}"
                self.node.exec(["uci", "set", f"{where}={value}"], check=True)
        elif method == "delete":
            where = f"{config}.{params['section']}"
            for option in params.get("options") or [params.get("option")]:
                self.node.exec(["uci", "-q", "delete", f"{where}.{option}" if option else where])
        elif method == "changes":
            return {"changes": {}}
        elif method in ("apply", "confirm"):
            self.applied += 1
            self.node.exec(["sh", "-c", "uci commit && service ha reload"], check=True)
        return {}

    def values(self, config: str) -> dict[str, Any] | None:
        """Return the sections of a configuration as `uci get` over ubus does, None without it."""
        file = self.node.path(f"/etc/config/{config}")
        if not file.exists():
            return None
        return {
            section.name: {
                ".type": section.type, ".name": section.name, ".index": index,
                ".anonymous": section.anonymous,
                **{option.name: option.value for option in section},
            }
            for index, section in enumerate(uci.load(file))
        }  # fmt: skip
