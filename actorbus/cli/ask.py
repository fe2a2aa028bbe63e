"""``actorbus ask``."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actorbus.cli import terminal
from actorbus.cli.audit.common import AsJson, print_json
from actorbus.cli.deployment import Bus, Namespace  # noqa: TC001 - typer reads the hints
from actorbus.cli.guest import code_of, failures_told, guest
from actorbus.cli.sending import (
    AllOf,
    AnyOf,
    As,
    Headers,
    Level,
    Payload,
    Target,
    addressee,
    headers_of,
    priority_of,
    value_of,
)
from actorbus.errors import ActorbusError, AgentFailed

if TYPE_CHECKING:
    from actorbus import Node
    from actorbus.actors.reply import Reply


def ask(
    bus: Bus,
    name: Target,
    payload: Payload = None,
    to_any: AnyOf = None,
    to_all: AllOf = None,
    timeout: Annotated[
        float, typer.Option(min=0.01, max=86_400, help="Seconds to wait for the reply.")
    ] = 30.0,
    priority: Level = "normal",
    headers: Headers = None,
    sign_as: As = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Ask an agent of a running deployment, and print its reply as JSON.

    With --all the reply is a list. --json puts it into an object with what it took, or with the
    error's type, message and traceback.

    Ends with 0 and the reply, with 1 if there is none (the agent failed or refused, nobody has the
    name, no reply in time, no server), and with 2 for arguments that cannot be meant.
    """
    with failures_told():
        option, whom, text = addressee(name, payload, {"--any": to_any, "--all": to_all})
        value = value_of(text)
        how = {
            "priority": priority_of(priority),
            "headers": headers_of(headers),
            "timeout": timeout,
        }
    with guest(bus, namespace, sign_as) as node:
        asked = time.monotonic()
        try:
            reply = _asked(node, option, whom)(value, **how).get()
        except ActorbusError as error:
            _fail(error, as_json)
        took = time.monotonic() - asked
    failed = option == "--all" and any(isinstance(one, BaseException) for one in reply)
    plain = [_told(one) for one in reply] if option == "--all" else _plain(reply)
    if as_json:
        print_json({"reply": plain, "seconds": round(took, 6)})
    else:
        sys.stdout.write(json.dumps(plain, indent=2) + "\n")
    if failed:
        terminal.fail("some of them did not answer; see above", 1)


def _asked(node: Node, option: str, whom: str) -> Any:
    def by_name(value: Any, **how: Any) -> Reply[Any]:
        return node.ask(whom, value, **how)

    return {"": by_name, "--any": node.any(whom).ask, "--all": node.all(whom).ask}[option]


def _fail(error: ActorbusError, as_json: bool) -> None:
    if as_json:
        print_json(_described(error))
    terminal.fail(f"{type(error).__name__}: {error}", code_of(error))


def _told(one: Any) -> Any:
    return _described(one) if isinstance(one, BaseException) else _plain(one)


def _described(error: BaseException) -> dict[str, str]:
    told = {"error": type(error).__name__, "message": str(error)}
    if isinstance(error, AgentFailed):
        told |= {"error_type": error.error_type, "traceback": error.traceback}
    return told


def _plain(value: Any) -> Any:
    """`value` in JSON's words, as message history writes it."""
    from actorbus.persistence.payloads import encode

    return json.loads(encode(value))
