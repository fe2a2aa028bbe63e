"""The options by which a command narrows down which messages it is about."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Final

import typer

from actorbus.cli.audit.command import From
from actorbus.cli.audit.common import moment
from actorbus.errors import InvalidQuery

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
    "since": "Sent at or after this time: ISO 8601, local unless it says otherwise.",
    "until": "Sent before this time.",
    "text": "With this in payload or error.",
}


def _filters(**given: str | None) -> Any:
    filters: dict[str, Any] = dict(given)
    for name in ("since", "until"):
        filters[name] = moment(f"--{name}", given[name])
    since, until = filters["since"], filters["until"]
    if since is not None and until is not None and since >= until:
        raise InvalidQuery(
            f"--since {given['since']} is no time before --until {given['until']}:"
            " nothing can match"
        )
    return filters


def _option(name: str, words: str) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[str | None, typer.Option(f"--{name}", help=words)],
    )


Filtered = Annotated[Any, From(_filters, [_option(*one) for one in _WORDS.items()])]
"""The filters that were given, as every question takes them."""
