"""Who may send what to whom."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from actorbus.bus.middleware import Dead, destination
from actorbus.errors import InvalidSettings
from actorbus.message import Message, Reason

if TYPE_CHECKING:
    from actorbus.bus.middleware import Handle, Middleware, Outcome

Policy: TypeAlias = Callable[[Message[Any]], bool | str]
"""True lets a message through; False, or a str that says why, refuses it."""

Table: TypeAlias = Mapping[str | None, Collection[str]]
"""Senders (None: code that is no agent) with whom they may send to; ``"*"`` is everyone."""


def authorise(allowed: Policy | Table) -> Middleware:
    """Refuse what `allowed` does not allow: the asker gets ``Rejected``, a tell is ``refused``.

    Side: ``Send`` refuses before anything is accepted, and the sender of a broadcast must be
    allowed ``"*"``, of an event the topic's name. ``Deliver`` decides for each agent that a
    message reaches, however it came there. Replies are always allowed.

    `allowed` may be ``Rules``, which a file can hold, and which go by payload, node and
    capability too. What other nodes send meets the ``Deliver`` side here, and no other.

    It fails closed: a sender that a table does not name may send to nobody, and a policy that
    raises refuses the message.

    Raises:
        InvalidSettings: `allowed` is neither a function nor a table.
    """
    policy = allowed if callable(allowed) else _policy(allowed)

    def authorised(handle: Handle) -> Handle:
        def handle_if_allowed(message: Message[Any]) -> Outcome:
            try:
                verdict = policy(message)
            except Exception as error:  # noqa: BLE001 - it is said where the message ends
                verdict = f"the policy raised {type(error).__name__}: {error}"
            if verdict is True:
                return handle(message)
            return Dead(Reason.REFUSED, verdict or _not_allowed(message))

        return handle_if_allowed

    return authorised


def _policy(table: object) -> Policy:
    if not isinstance(table, Mapping) or any(isinstance(names, str) for names in table.values()):
        raise InvalidSettings(
            "authorise() takes a function of a message, or a table like"
            f' {{"scout": ["librarian"], None: ["*"]}}, not {table!r}'
        )
    rights = {sender: frozenset(names) for sender, names in table.items()}

    def allows(message: Message[Any]) -> bool:
        names = rights.get(message.sender, frozenset())
        return "*" in names or destination(message) in names

    return allows


def _not_allowed(message: Message[Any]) -> str:
    sender = "code that is no agent" if message.sender is None else repr(message.sender)
    return f"{sender} may not send {message.type} to {destination(message)!r}"
