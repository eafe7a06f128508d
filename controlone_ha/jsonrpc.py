"""JSON-RPC 2.0, one line a message: a sans-I/O codec, an asyncio connection and a blocking call.

Every local socket of the product and the console protocol on TCP/7551 speak this. A message is one
JSON object in UTF-8, ended by a newline; a line longer than ``MAX_LINE`` ends the connection, so a
peer cannot make a process grow. Requests carry an id, notifications none.

Theory of operation: ``decode`` turns a line into a ``Message``; ``Connection`` owns a stream pair,
answers requests through ``handler`` (each in its own task, so that a slow one delays no other),
matches answers to pending calls, and is torn down on one path (``close``), failing what is pending.
It is not a framework: no batches (the specification allows to refuse them), no positional params.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlone_ha.errors import ControlOneError, PeerError, RefusedError

GROUP = "controlone"
"""Who may use the local sockets beside root, where such a group exists."""
MAX_LINE = 1 << 20
MAX_UNSENT = 4 << 20

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
REFUSED = -32000
NOT_SERVING = -32001

JsonObject = dict[str, Any]


class RpcError(ControlOneError):
    """An error answer: ``number`` is the JSON-RPC code, ``data`` its machine-readable part."""

    code = "rpc"

    def __init__(
        self, number: int, message: str, data: Any = None, *, request_id: int | str | None = None
    ) -> None:
        super().__init__(message)
        self.number = number
        self.data = data
        self.request_id = request_id
        """Of a request that could not be decoded; None where that holds for its id as well."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One decoded line: a request (method and id), a notification (method), or an answer (id)."""

    method: str | None = None
    params: JsonObject | None = None
    id: int | str | None = None
    result: Any = None
    error: JsonObject | None = None


def encode_request(method: str, params: JsonObject | None, request_id: int | None) -> bytes:
    """Return the line of a request, or of a notification when ``request_id`` is None."""
    message: JsonObject = {"jsonrpc": "2.0", "method": method, "params": params or {}}
    if request_id is not None:
        message["id"] = request_id
    return _line(message)


def encode_result(request_id: int | str | None, result: Any) -> bytes:
    """Return the line of a successful answer."""
    return _line({"jsonrpc": "2.0", "id": request_id, "result": result})


def encode_error(request_id: int | str | None, number: int, text: str, data: Any = None) -> bytes:
    """Return the line of an error answer."""
    error: JsonObject = {"code": number, "message": text}
    if data is not None:
        error["data"] = data
    return _line({"jsonrpc": "2.0", "id": request_id, "error": error})


def encode_fault(error: RpcError) -> bytes:
    """Return the line that answers what ``decode`` has refused."""
    return encode_error(error.request_id, error.number, str(error), error.data)


def _line(message: JsonObject) -> bytes:
    text = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
    # A lone surrogate of the other side (in an id that is echoed, say) has no UTF-8 form; its
    # backslash form is just how JSON escapes it.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def decode(line: bytes) -> Message:
    """Return the message in ``line``; raise ``RpcError`` (parse error, invalid request)."""
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RpcError(PARSE_ERROR, f"not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise RpcError(INVALID_REQUEST, f"expected one JSON object, got {type(raw).__name__}")
    method, params, message_id = raw.get("method"), raw.get("params"), raw.get("id")
    if message_id is not None and (
        not isinstance(message_id, int | str) or isinstance(message_id, bool)
    ):
        raise RpcError(INVALID_REQUEST, "id must be a string or an integer")
    if method is None:
        if message_id is None and "error" not in raw:
            raise RpcError(INVALID_REQUEST, "neither a method nor an id")
        error_part = raw.get("error")
        if error_part is not None and not isinstance(error_part, dict):
            raise RpcError(INVALID_REQUEST, "error must be an object")
        return Message(id=message_id, result=raw.get("result"), error=error_part)
    if not isinstance(method, str):
        raise RpcError(INVALID_REQUEST, "method must be a string", request_id=message_id)
    if params is not None and not isinstance(params, dict):
        raise RpcError(INVALID_PARAMS, "params must be an object", request_id=message_id)
    return Message(method=method, params=params or {}, id=message_id)


def error_of(message: Message) -> RpcError:
    """Return the error answer in ``message`` as an exception."""
    error = message.error or {}
    number = error.get("code")
    return RpcError(
        number if isinstance(number, int) else INTERNAL_ERROR,
        str(error.get("message", "unknown error")),
        error.get("data"),
    )


Handler = Callable[["Connection", str, JsonObject], Awaitable[Any]]


class Connection:
    """One stream, both directions. ``handler`` serves what the other side asks (None: nothing)."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handler: Handler | None = None,
        *,
        max_concurrent: int = 64,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.context: dict[str, Any] = {}
        self._handler = handler
        self._pending: dict[int | str, asyncio.Future[Any]] = {}
        self._next_id = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(max_concurrent)
        self._closed = False

    async def run(self) -> None:
        """Read until the stream ends; then tear down."""
        try:
            while True:
                line = await self.reader.readline()
                if not line.endswith(b"\n"):
                    break
                if line.strip():
                    await self._receive(line)
        except (ConnectionError, ValueError, asyncio.LimitOverrunError, OSError):
            pass  # ValueError: the line limit of the stream; the connection ends either way
        finally:
            await self.close()

    async def _receive(self, line: bytes) -> None:
        try:
            message = decode(line)
        except RpcError as error:
            self._write(encode_fault(error))
            return
        if message.method is None:
            future = self._pending.pop(message.id, None) if message.id is not None else None
            if future is not None and not future.done():
                if message.error is not None:
                    future.set_exception(error_of(message))
                else:
                    future.set_result(message.result)
            return
        await self._slots.acquire()
        task = asyncio.ensure_future(self._serve(message))
        self._tasks.add(task)
        task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if not task.cancelled() and task.exception() is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "request handler failed", "exception": task.exception(), "task": task}
            )

    async def _serve(self, message: Message) -> None:
        assert message.method is not None
        try:
            if self._handler is None:
                raise RpcError(METHOD_NOT_FOUND, f"no method {message.method!r} here")
            answer = encode_result(
                message.id, await self._handler(self, message.method, message.params or {})
            )
        except RpcError as error:
            answer = encode_error(message.id, error.number, str(error), error.data)
        except RefusedError as error:
            answer = encode_error(message.id, REFUSED, str(error), {"code": error.code})
        except ControlOneError as error:
            answer = encode_error(message.id, INTERNAL_ERROR, str(error), {"code": error.code})
        except Exception as error:
            answer = encode_error(message.id, INTERNAL_ERROR, f"{type(error).__name__}: {error}")
            if message.id is not None:
                self._write(answer)
            raise  # the task reaper logs the traceback
        if message.id is not None:
            self._write(answer)

    def _write(self, line: bytes) -> None:
        if self._closed:
            return
        if self.writer.transport.get_write_buffer_size() > MAX_UNSENT:
            self.abort()  # a reader that does not read: only its own connection pays
            return
        self.writer.write(line)

    async def call(
        self, method: str, params: JsonObject | None = None, *, timeout: float = 10.0
    ) -> Any:
        """Ask the other side; raise ``RpcError``, ``TimeoutError`` or ``PeerError`` (closed)."""
        if self._closed:
            raise PeerError("connection is closed")
        self._next_id += 1
        request_id = self._next_id
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = future
        try:
            self._write(encode_request(method, params, request_id))
            return await asyncio.wait_for(future, timeout)
        finally:
            self._pending.pop(request_id, None)

    def notify(self, method: str, params: JsonObject | None = None) -> None:
        """Send a notification; never blocks."""
        self._write(encode_request(method, params, None))

    def abort(self) -> None:
        """Drop the connection at once, without flushing."""
        self.writer.transport.abort()

    @property
    def closed(self) -> bool:
        """True once torn down."""
        return self._closed

    async def close(self) -> None:
        """Flush what can be, fail what is pending, cancel what is being served. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for future in self._pending.values():
            if not future.done():
                future.set_exception(PeerError("connection closed before the answer"))
        self._pending.clear()
        current = asyncio.current_task()
        for task in [task for task in self._tasks if task is not current]:
            task.cancel()
        self.writer.close()
        with contextlib.suppress(ConnectionError, OSError, TimeoutError):
            await asyncio.wait_for(self.writer.wait_closed(), 1.0)


async def serve_unix(
    path: Path, handler: Handler, *, mode: int = 0o600
) -> tuple[asyncio.AbstractServer, set[Connection]]:
    """Serve ``handler`` on a Unix socket; return the server and the set of its live connections.

    A socket file left by a dead process is replaced; one that still answers raises
    ``RefusedError`` (two daemons must not fight for a node). Where the system has the group
    ``GROUP`` its members may connect as well.
    """
    connections: set[Connection] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer, handler)
        connections.add(connection)
        try:
            await connection.run()
        finally:
            connections.discard(connection)

    listener = bind_unix(path, mode=mode)
    _admit_group(path)
    server = await asyncio.start_unix_server(accept, sock=listener, limit=MAX_LINE)
    return server, connections


def _admit_group(path: Path) -> None:
    import grp

    try:
        group = grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return
    if os.geteuid() == 0:
        os.chown(path, -1, group)
        path.chmod(0o660)


def bind_unix(path: Path, *, mode: int = 0o600) -> socket.socket:
    """Return a Unix socket bound to ``path`` with that mode; it does not listen yet.

    A socket file left by a dead process is replaced; one that still answers raises
    ``RefusedError``. The umask belongs to the whole process, so nothing may be awaited while it is
    narrowed: two servers that start side by side would otherwise leave it so for good.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(str(path)) == 0:
                raise RefusedError(f"{path}: another process serves this socket already")
        path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o777 & ~mode)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(umask)
    return listener


async def connect_unix(path: Path, handler: Handler | None = None) -> Connection:
    """Connect to a Unix socket and start reading; raise ``OSError`` when nobody serves it."""
    reader, writer = await asyncio.open_unix_connection(str(path), limit=MAX_LINE)
    connection = Connection(reader, writer, handler)
    connection.context["task"] = asyncio.ensure_future(connection.run())
    return connection


def call(
    path: Path, method: str, params: JsonObject | None = None, *, timeout: float = 10.0
) -> Any:
    """Ask once over a Unix socket, blocking: for commands, which must start fast.

    Raises ``OSError`` (nobody serves, or no answer within ``timeout`` seconds) and ``RpcError``.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.settimeout(timeout)
        stream.connect(str(path))
        stream.sendall(encode_request(method, params, 1))
        with stream.makefile("rb") as lines:
            for line in lines:
                message = decode(line)
                if message.id == 1 and message.method is None:
                    if message.error is not None:
                        raise error_of(message)
                    return message.result
    raise ConnectionResetError(f"{path}: closed before the answer")
