"""Trace context in the headers, as W3C Trace Context writes it."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any, Final

from actorbus.bus.origin import CURRENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actorbus.bus.middleware import Handle, Middleware, Outcome
    from actorbus.message import Message

_PARENT: Final = "traceparent"
_STATE: Final = "tracestate"
_VALID: Final = re.compile(
    r"00-(?P<trace>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})"
)
_SAMPLED: Final = "01"


def trace() -> Middleware:
    """Give every message a ``traceparent`` header (W3C Trace Context, version 00).

    A message that a handler sends continues the trace of the message in hand, with its flags
    and its ``tracestate``. Any other starts one, whose id is the conversation's
    ``correlation_id``: so a trace is found in history, and the other way round. A
    ``traceparent`` that the sender has written stays.

    Side: ``Send``. Needs no SDK, and reports to nobody.
    """

    def traced(handle: Handle) -> Handle:
        def handle_traced(message: Message[Any]) -> Outcome:
            if _PARENT in message.headers:
                return handle(message)
            return handle(message.copy(headers={**message.headers, **_context(message)}))

        return handle_traced

    return traced


def _context(message: Message[Any]) -> Mapping[str, str]:
    origin = CURRENT.get()
    cause = None if origin is None else origin.message
    inherited: Mapping[str, str] = {} if cause is None else cause.headers
    span = secrets.token_hex(8)
    valid = _VALID.fullmatch(inherited.get(_PARENT, ""))
    if valid is None:
        return {_PARENT: f"00-{message.correlation_id:032x}-{span}-{_SAMPLED}"}
    context = {_PARENT: f"00-{valid['trace']}-{span}-{valid['flags']}"}
    if _STATE in inherited:
        context[_STATE] = inherited[_STATE]
    return context
