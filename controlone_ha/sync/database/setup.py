"""Makes a node's own database right: replica set of one, the two users; says what it cannot.

Theory of operation. A new mongod that requires login lets a client from its own machine make the
first user, once. So: replSetInitiate (the member is ``localhost``: with the node's address, a
missing address at boot would leave the database read-only), the own user, then, as that user, the
user as which peers read. Where there are users already, an administrator has to be named. What only
mongod's own options can change is told as lines of mongod.conf.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pymongo.errors import OperationFailure, PyMongoError

from controlone_ha.errors import ServiceError
from controlone_ha.probes.database import DatabaseTarget
from controlone_ha.sync.database.clients import find_trouble, open_client
from controlone_ha.sync.database.options import SET_NAME
from controlone_ha.sync.database.settings import OWN_USER, USER

if TYPE_CHECKING:
    from pymongo import MongoClient

AUTHENTICATION_FAILED = 18
NOT_YET_INITIALIZED = 94
ALREADY_INITIALIZED = 23
UNAUTHORIZED = 13
ELECTION = 20.0

OWN_ROLES: list[Any] = [
    "readWriteAnyDatabase",
    "dbAdminAnyDatabase",
    "userAdminAnyDatabase",
    "clusterAdmin",
]
# The exception for a machine's own clients may give roles of the database admin only.
MORE_OWN_ROLES: list[Any] = [{"role": "read", "db": "local"}]
READER_ROLES: list[Any] = ["readAnyDatabase", "clusterMonitor"]


class SetupError(ServiceError):
    """The own database cannot be made right; the text says what a person has to do."""

    code = "database_setup"


@dataclass(kw_only=True)
class Done:
    """What was done, one sentence each."""

    steps: list[str] = field(default_factory=list)


def make_right(
    own: DatabaseTarget, reader_password: str, *, administrator: DatabaseTarget | None = None
) -> Done:
    """Initiate the set and make the users as far as that is needed.

    Raises ``SetupError``, and ``PyMongoError`` when the database cannot be reached.
    """
    done = Done()
    if not own.user:
        return done
    if not _logs_in(own):
        _bootstrap(own, administrator, done)
    with open_client(own, own=True) as client:
        _initiate(client, own.port, done)
        _wait_writable(client)
        client.admin.command("grantRolesToUser", OWN_USER, roles=MORE_OWN_ROLES)
        reader = replace(own, user=USER, password=reader_password)
        if not _logs_in(reader):
            _make_user(client, USER, reader_password, READER_ROLES, done)
    return done


def _logs_in(target: DatabaseTarget) -> bool:
    with open_client(target, own=False) as client:
        try:
            client.admin.command("ping")
            # mongod serves a ping without login; the login itself happens with the connection.
            client.admin.command("connectionStatus")
        except OperationFailure as error:
            if error.code == AUTHENTICATION_FAILED:
                return False
            raise
        except PyMongoError as error:
            finding = find_trouble(target, client, error)
            if (finding.answer or {}).get("fault") == "auth":
                return False
            raise
    return True


def _bootstrap(own: DatabaseTarget, administrator: DatabaseTarget | None, done: Done) -> None:
    """Make the own user: by the exception for a machine's own clients, or as an administrator."""
    with open_client(administrator or replace(own, user="", password=""), own=True) as client:
        _initiate(client, own.port, done)
        _wait_writable(client)
        try:
            _make_user(client, OWN_USER, own.password, OWN_ROLES, done)
        except OperationFailure as error:
            if error.code != UNAUTHORIZED:
                raise
            raise SetupError(
                f"the database has users already, and {OWN_USER} cannot log in; "
                "run `ha database setup --user ADMINISTRATOR` once"
            ) from error


def _initiate(client: MongoClient[Any], port: int, done: Done) -> None:
    hello = client.admin.command("hello")
    if hello.get("setName"):
        return
    if not hello.get("isreplicaset"):
        raise SetupError(
            f"mongod runs without a replica set: set replication.replSetName: {SET_NAME} in "
            "mongod.conf and restart it"
        )
    member = {"_id": 0, "host": f"localhost:{port}"}
    try:
        client.admin.command("replSetInitiate", {"_id": SET_NAME, "members": [member]})
    except OperationFailure as error:
        if error.code == ALREADY_INITIALIZED:
            return
        raise SetupError(f"replSetInitiate: {error.details or error}") from error
    done.steps.append(f"replica set {SET_NAME} initiated, its one member is localhost:{port}")


def _wait_writable(client: MongoClient[Any]) -> None:
    deadline = time.monotonic() + ELECTION
    while not client.admin.command("hello")["isWritablePrimary"]:
        if time.monotonic() > deadline:
            raise SetupError(f"the database does not become primary within {ELECTION:g} s")
        time.sleep(0.05)


def _make_user(
    client: MongoClient[Any], name: str, password: str, roles: list[Any], done: Done
) -> None:
    found = None
    try:
        found = client.admin.command("usersInfo", name)["users"]
    except OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
    fields: dict[str, Any] = {"pwd": password, "roles": roles, "mechanisms": ["SCRAM-SHA-256"]}
    if found:
        client.admin.command("updateUser", name, **fields)
        done.steps.append(f"user {name} has the password and the roles it needs now")
    else:
        client.admin.command("createUser", name, **fields)
        done.steps.append(f"user {name} made")


def running_options(client: MongoClient[Any]) -> Mapping[str, Any]:
    """Return how the running mongod was started, as getCmdLineOpts parses it."""
    found: Mapping[str, Any] = client.admin.command("getCmdLineOpts")["parsed"]
    return found


def rotate_certificates(client: MongoClient[Any]) -> None:
    """Have mongod read its certificate files again: whom new connections are taken from."""
    client.admin.command({"rotateCertificates": 1, "message": "pins changed"})


def shut_out(client: MongoClient[Any], reader_password: str) -> None:
    """Take the rights of every connection that peers have open, by making their user anew.

    A connection that was let in goes on after its certificate has left the file. A user of the same
    name has another id: who still has the right certificate logs in again, an expelled node cannot.
    """
    client.admin.command("dropUser", USER)
    _make_user(client, USER, reader_password, READER_ROLES, Done())
