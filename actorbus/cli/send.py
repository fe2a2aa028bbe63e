"""``actorbus send``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from actorbus.bus.transport import Guarantee
from actorbus.cli.audit.common import AsJson, console, inert, print_json
from actorbus.cli.deployment import Bus, Namespace  # noqa: TC001 - typer reads the hints
from actorbus.cli.guest import failures_told, guest
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
from actorbus.errors import InvalidArgument, NotFlushed, TransportUnavailable

if TYPE_CHECKING:
    from actorbus import Node


class _Order(NamedTuple):
    option: str
    whom: str
    payload: Any
    how: dict[str, Any]


def send(
    bus: Bus,
    name: Target,
    payload: Payload = None,
    to_any: AnyOf = None,
    to_all: AllOf = None,
    topic: Annotated[
        str | None, typer.Option(metavar="TOPIC", help="Publish it as an event of that topic.")
    ] = None,
    broadcast: Annotated[bool, typer.Option("--broadcast", help="To every agent.")] = False,
    priority: Level = "normal",
    ttl: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Not handled later than that: then a dead letter."),
    ] = None,
    delay: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Kept on the server for so long first.")
    ] = None,
    headers: Headers = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds to wait until it is accepted.")
    ] = 10.0,
    sign_as: As = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Send a message to an agent of a running deployment, and wait until it is accepted.

    Accepted means that the server has it: it will be handled, or be a dead letter that says why.

    Ends with 0 once it is accepted, with 1 if it is not or the server is not there, and with 2
    for arguments that cannot be meant.
    """
    with failures_told():
        others = {"--any": to_any, "--all": to_all, "--topic": topic, "--broadcast": broadcast}
        option, whom, text = addressee(name, payload, others)
        if delay is not None and option in ("--topic", "--broadcast"):
            raise InvalidArgument("a delay", delay, f"with {option} there is none")
        how = {"priority": priority_of(priority), "ttl": ttl, "headers": headers_of(headers)}
        order = _Order(
            option, whom, value_of(text), how if delay is None else {**how, "delay": delay}
        )
    with guest(bus, namespace, sign_as) as node:
        if delay is not None and not node.bus.guarantees.gives(Guarantee.SURVIVES):
            why = "over plain pub/sub its sender keeps it, and this command ends at once"
            raise InvalidArgument("a delay", delay, why)
        _send(node, order)
        _await(node, timeout)
    said = {"": f"agent {whom!r}", "--topic": f"topic {whom!r}", "--broadcast": "every agent"}
    to = said.get(option, f"{option[2:]} that offers {whom!r}")
    if as_json:
        print_json({"accepted": True, "to": option[2:] or "agent", "name": whom})
        return
    later = "" if delay is None else f", in {delay:g} s"
    console().print(inert(f"Accepted, for {to}{later}."))


def _send(node: Node, order: _Order) -> None:
    match order.option:
        case "":
            node.tell(order.whom, order.payload, **order.how)
        case "--any":
            node.any(order.whom).tell(order.payload, **order.how)
        case "--all":
            node.all(order.whom).tell(order.payload, **order.how)
        case "--topic":
            node.topic(order.whom).publish(order.payload, **order.how)
        case _:
            node.broadcast(order.payload, **order.how)


def _await(node: Node, timeout: float) -> None:
    """
    Raises:
        TransportUnavailable: it was not accepted, or nobody knows.
    """
    try:
        node.flush(timeout)
    except NotFlushed:
        raise TransportUnavailable(
            f"not accepted within {timeout:g} s: the inbox has no room, or the server is away."
            " It may have been; --timeout waits longer"
        ) from None
    for letter in node.dead_letters.list(limit=1):
        why = f": {letter.error}" if letter.error else ""
        raise TransportUnavailable(f"not accepted, {letter.reason}{why}")
