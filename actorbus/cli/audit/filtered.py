"""The options by which a command narrows down which messages it is about."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from actorbus.cli.audit.common import answered, moment

if TYPE_CHECKING:
    from collections.abc import Callable

_WORDS: Final = {
    "sender": "Sent by this agent.",
    "recipient": "Received by this agent.",
    "agent": "Sent or received by this agent.",
    "type": "Payloads of this type.",
    "topic": "Published under this topic.",
    "kind": "tell, request, reply, error, broadcast or event.",
    "status": "accepted, handled, failed or dead.",
    "reason": "Ended for this reason, such as expired.",
    "run": "Of this run.",
    "node": "Recorded by this node.",
    "conversation": "Of the conversation with this id.",
    "since": "Sent at or after, in ISO 8601.",
    "until": "Sent before, in ISO 8601.",
    "text": "With this in payload or error.",
}


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, with an option for each filter; it gets them all as `filters`."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    options = [_option(name, words) for name, words in _WORDS.items()]
    taken = [*(one for one in own if one.name != "filters"), *options]

    def run(**given: Any) -> None:
        filters = {name: given.pop(name) for name in _WORDS}
        for name in ("since", "until"):
            filters[name] = answered(_reading(name, filters[name]))
        command(**given, filters=filters)

    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    run.__annotations__ = {one.name: one.annotation for one in taken}
    run.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]
    return run


def _reading(name: str, value: str | None) -> Callable[[], Any]:
    return lambda: moment(f"--{name}", value)


def _option(name: str, words: str) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[str | None, typer.Option(f"--{name}", help=words)],
    )
