"""Every error actorbus raises, in one tree.

::

    ActorbusError
    ├── BusError                 moving messages
    │   ├── UnknownRecipient     nobody has that name
    │   ├── NoProvider           nobody offers that capability
    │   ├── UnknownMessage       no message with that id is kept
    │   ├── MailboxFull          the recipient's mailbox is at its capacity
    │   ├── MessageExpired       the message's time was up before it could be sent
    │   ├── PayloadTooLarge      more bytes than the limit
    │   ├── UnsupportedPayload   a value that no transport can carry
    │   ├── Undecodable          bytes that are no message
    │   ├── Untrusted            bytes that no trusted node vouches for
    │   ├── InvalidArgument      an argument that cannot be meant
    │   │   └── InvalidName      not the name of an agent, capability or topic, no message's id
    │   ├── UnknownTransport     no transport for that URL scheme
    │   ├── TransportUnavailable the transport's server cannot be reached
    │   │   └── InvalidUrl       its URL, or what goes with it, cannot be meant
    │   ├── NotFlushed           sends that were not accepted in time
    │   └── BusClosed            the node has stopped or was never started
    ├── ActorError               agents at work
    │   ├── NoHandler            the agent has no handler for that payload
    │   ├── AskTimeout           no reply before the deadline (also a TimeoutError)
    │   ├── AgentFailed          the asked handler raised
    │   ├── AgentStopped         the agent has stopped, or is parked
    │   ├── Rejected             the agent refused the message
    │   ├── UnexpectedReply      the handler returned another class than the ask expects
    │   ├── Cancelled            the ask was cancelled
    │   ├── DeadlockDetected     the wait could never end
    │   ├── PoolExhausted        no thread left to wait on
    │   ├── OwnerLost            the agent's node died in mid-ask
    │   ├── NameTaken            the name belongs to another agent, or node
    │   ├── NotDrained           work left when the time to drain was up
    │   ├── NotStopped           handlers that did not return when the node stopped
    │   └── InvalidHandler       an agent class that cannot work
    ├── ContextError             shared state
    │   ├── VersionConflict      somebody else wrote first
    │   ├── VersionNotKept       a version too old, or one that never was
    │   ├── InvalidOperation     a read or write that cannot be meant
    │   ├── AccessDenied         a private namespace of somebody else
    │   └── StaleOwner           another node owns the agent now
    ├── PersistenceError         message history
    │   ├── AuditUnavailable     the history database cannot be used
    │   │   └── InvalidAuditUrl  its URL cannot be meant
    │   ├── InvalidQuery         a question to history that cannot be meant
    │   ├── NotReplayable        a stored conversation that cannot run again
    │   ├── UnknownRecord        no tenant, project, run or agent's part of that name
    │   ├── RecordExists         that name is taken there already
    │   ├── HistoryKept          messages stand in the way, and only retention deletes those
    │   └── HistoryHeld          a legal hold forbids it
    └── InvalidSettings          a setting that cannot be meant

``Reject`` is not in the tree: a handler raises it to refuse a message, and nobody else sees it.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SHOWN_NAMES: Final = 10


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The sentence that offers the closest known word, or an empty string."""
    close = difflib.get_close_matches(word[:128], list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def listed(names: Iterable[str]) -> str:
    """Names for an error's sentence: sorted, and cut where they would fill the screen."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:_SHOWN_NAMES]) or "none"
    hidden = len(ordered) - _SHOWN_NAMES
    return f"{shown} and {hidden:,} more" if hidden > 0 else shown


class ActorbusError(Exception):
    """The root of every error that actorbus raises."""


class BusError(ActorbusError):
    """A message could not be moved."""


class UnknownRecipient(BusError):
    """Nobody has that name."""

    def __init__(self, name: str, running: Iterable[str] = ()) -> None:
        names = list(running)
        super().__init__(f"no agent {name!r}.{did_you_mean(name, names)} Running: {listed(names)}.")
        self.name = name


class NoProvider(BusError):
    """Nobody who runs offers that capability."""

    def __init__(
        self, capability: str, offered: Iterable[str] = (), lost: Iterable[str] = ()
    ) -> None:
        known = list(offered)
        self.offered = tuple(sorted(known))
        """What could have been asked for."""
        self.lost = tuple(sorted(lost))
        """Agents that offered it and have stopped or died."""
        super().__init__(
            f"no agent offers {capability!r}.{did_you_mean(capability, known)}"
            f" Offered: {listed(known)}."
            f"{f' Stopped or dead: {listed(self.lost)}.' if self.lost else ''}"
        )
        self.capability = capability


class UnknownMessage(BusError):
    """No message with that id is kept here."""


class MailboxFull(BusError):
    """The mailbox already holds as many waiting messages as it may; `capacity` 0: nobody here
    knows how many, or its bytes are what is full."""

    def __init__(self, name: str, capacity: int, advice: str = "") -> None:
        at = f" at {capacity:,} waiting messages" if capacity else ""
        super().__init__(f"the mailbox of {name!r} is full{at}{f'; {advice}' if advice else ''}")
        self.name = name
        self.capacity = capacity


class MessageExpired(BusError):
    """The message's time was up before it could be sent."""


class PayloadTooLarge(BusError):
    """The payload is larger than the limit, in bytes."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"the payload takes {size:,} bytes, the limit is {limit:,};"
            " send a reference to it, or raise the setting payload_limit"
        )
        self.size = size
        self.limit = limit


class UnsupportedPayload(BusError):
    """The payload holds a value that no transport can carry."""


class Undecodable(BusError):
    """Bytes that are no message of ours."""


class Untrusted(BusError):
    """Bytes that no trusted node vouches for, here and now: their message is ``refused``.

    ``why`` is a word of ``actorbus.codec.signing.Distrust``; ``node`` is who is said to have
    sent them, where that is proven.
    """

    def __init__(self, why: str, sentence: str, node: str | None = None) -> None:
        super().__init__(f"not to be trusted ({why}): {sentence}")
        self.why = why
        self.node = node


class InvalidArgument(BusError):
    """An argument that cannot be meant, found before anything is done. ``value`` is what it was."""

    _sentence = "{what} cannot be {shown}: {why}"

    def __init__(self, what: str, value: object, why: str) -> None:
        shown = repr(value)
        shown = shown if len(shown) <= 64 else f"{shown[:61]}..."
        super().__init__(self._sentence.format(what=what, shown=shown, why=why))
        self.value = value


class InvalidName(InvalidArgument):
    """Not the name of an agent, a capability, a topic or a context key, or no message's id."""

    _sentence = "{shown} is no name for {what}: {why}"


class UnknownTransport(BusError):
    """No transport is known for that URL scheme, or it is no URL. What follows it is secret."""

    def __init__(self, url: object, schemes: Iterable[str]) -> None:
        known = list(schemes)
        scheme, colon, _ = url.partition(":") if isinstance(url, str) else (repr(url), "", "")
        scheme = scheme[:32]
        shown = repr(scheme + colon) if isinstance(url, str) else scheme
        super().__init__(
            f"no transport for the bus {shown}.{did_you_mean(scheme, known)}"
            f" Known: {', '.join(f'{name}://' for name in sorted(known))}."
        )
        self.scheme = scheme


class TransportUnavailable(BusError):
    """The transport's server cannot be reached, or does not do what is asked of it.

    ``why`` is what it said, in our words, where it said something: a wrong password, a full
    memory. One that says nothing is away.
    """

    def __init__(self, sentence: str, why: str = "") -> None:
        super().__init__(sentence)
        self.why = why


class InvalidUrl(TransportUnavailable):
    """No server can be meant by that URL and the settings that go with it: wait for none."""


class NotFlushed(BusError):
    """Sends were not accepted in time."""

    def __init__(self, count: int) -> None:
        super().__init__(f"{count:,} messages were sent but not yet accepted")
        self.count = count


class BusClosed(BusError):
    """The node has stopped, or was never started."""


class ActorError(ActorbusError):
    """An agent could not do what was asked of it."""


class NoHandler(ActorError):
    """The agent has no handler for that payload."""

    def __init__(self, agent: str, payload_type: str, handled: Iterable[str]) -> None:
        super().__init__(
            f"agent {agent!r} has no handler for {payload_type}; it handles {listed(handled)}"
        )
        self.agent = agent
        self.payload_type = payload_type


class AskTimeout(ActorError, TimeoutError):
    """No reply came before the deadline. The handler may have run, or may still run."""

    def __init__(self, recipient: str, timeout: float, note: str = "") -> None:
        super().__init__(f"no reply from {recipient!r} within {timeout:.3g} s{note}")
        self.recipient = recipient
        self.timeout = timeout


class AgentFailed(ActorError):
    """The handler that was asked raised.

    In the same process, the handler's own exception is the ``__cause__``.
    """

    def __init__(self, agent: str, error_type: str, message: str, traceback: str) -> None:
        super().__init__(f"agent {agent!r} failed with {error_type}: {message}")
        self.agent = agent
        self.error_type = error_type
        self.message = message
        self.traceback = traceback


class AgentStopped(ActorError):
    """The agent has stopped, or is parked after failing too often."""

    def __init__(self, name: str, why: str = "has stopped") -> None:
        super().__init__(f"agent {name!r} {why}")
        self.name = name


class Rejected(ActorError):
    """The agent, or a middleware on the way to it, refused the message."""

    def __init__(self, agent: str, why: str) -> None:
        super().__init__(f"{agent!r} refused the message: {why}")
        self.agent = agent
        self.why = why


class UnexpectedReply(ActorError):
    """The message was handled, but its reply is not of the class that the ask expects."""

    def __init__(self, agent: str, expected: type, got: type) -> None:
        super().__init__(
            f"{agent!r} answered with {got.__qualname__} where {expected.__qualname__} was"
            f" expected: ask with expect={got.__qualname__}, or without expect"
        )
        self.agent = agent
        self.expected = expected
        self.got = got


class Cancelled(ActorError):
    """The ask was cancelled."""


class DeadlockDetected(ActorError):
    """The wait could never end: everyone on the chain waits for the next one."""

    def __init__(self, chain: Sequence[str], advice: str = "") -> None:
        sentence = f"waiting for ever: {' -> '.join(chain)}" if chain else "waiting for ever"
        super().__init__(f"{sentence}{f'; {advice}' if advice else ''}")
        self.chain = tuple(chain)


class PoolExhausted(ActorError):
    """Every thread the pool may have is waiting already."""

    def __init__(self, threads: int) -> None:
        super().__init__(
            f"all {threads} threads of the pool are waiting; raise the setting pool_threads,"
            " or write the waiting handlers as `async def`"
        )
        self.threads = threads


class OwnerLost(ActorError):
    """The node that owned the agent died while it had the message.

    ``deaths``: how many nodes did, one after another, before the message was given up.
    """

    def __init__(self, name: str, *, maybe_ran: bool = True, deaths: int = 1) -> None:
        again = f" {deaths} times while it had this in hand" if deaths > 1 else ""
        super().__init__(
            f"the node of agent {name!r} was lost{again}"
            f"{'; the handler may have run' if maybe_ran else ''}"
        )
        self.name = name
        self.maybe_ran = maybe_ran
        self.deaths = deaths


class NameTaken(ActorError):
    """The name belongs to another agent, or to another node."""

    def __init__(self, name: str, owner: str = "", what: str = "agent") -> None:
        where = f" on node {owner!r}" if owner else ""
        super().__init__(f"the name {name!r} belongs to a running {what}{where}; choose another")
        self.name = name


class NotDrained(ActorError):
    """Work was left when the time to drain was up."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(sorted(names))
        super().__init__(f"still at work: {listed(self.names)}")


class NotStopped(ActorError):
    """Handlers had not returned when the node stopped; their threads are left behind."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(sorted(names))
        super().__init__(f"handlers that did not return, left behind: {listed(self.names)}")


class InvalidHandler(ActorError):
    """An agent class or function that cannot work, found when it is defined."""


class ContextError(ActorbusError):
    """Shared state could not be read or written."""


class VersionConflict(ContextError):
    """Somebody else wrote first. ``current`` is the version to start again from."""

    def __init__(self, namespace: str, key: str, expected: int, current: int) -> None:
        super().__init__(
            f"{namespace}:{key} is at version {current}, not {expected};"
            " read it again, or let update() do so"
        )
        self.namespace = namespace
        self.key = key
        self.expected = expected
        self.current = current


class VersionNotKept(ContextError):
    """That version of a key is not there any more, or never was. ``kept`` names those that are."""

    def __init__(self, namespace: str, key: str, version: int, kept: Sequence[int]) -> None:
        span = f"versions {kept[0]} to {kept[-1]}" if kept else "no version"
        super().__init__(f"{namespace}:{key} keeps {span}, not version {version}")
        self.namespace = namespace
        self.key = key
        self.version = version
        self.kept = tuple(kept)


class InvalidOperation(ContextError):
    """A read or write of shared state that cannot be meant."""


class AccessDenied(ContextError):
    """A namespace that is private to somebody else."""

    def __init__(self, namespace: str, principal: str | None, right: str) -> None:
        who = f"agent {principal!r}" if principal else "code outside an agent"
        super().__init__(f"{who} may not {right} {namespace!r}: its owner can grant() that")
        self.namespace = namespace
        self.principal = principal
        self.right = right


class StaleOwner(ContextError):
    """Another node owns the agent now: what this one writes for it does not count."""

    def __init__(self, agent: str) -> None:
        super().__init__(
            f"this node does not own agent {agent!r} any more; its owner writes what is private"
            " to it"
        )
        self.agent = agent


class PersistenceError(ActorbusError):
    """Message history could not be kept or read."""


class AuditUnavailable(PersistenceError):
    """The history database cannot be used."""


class InvalidAuditUrl(AuditUnavailable):
    """No database can be meant by that URL."""


class InvalidQuery(PersistenceError):
    """A question to history that cannot be meant."""


class NotReplayable(PersistenceError):
    """A stored conversation that cannot run again, or not in this way."""


class UnknownRecord(PersistenceError):
    """The tenant has no project, run or agent's part in a run of that name."""

    def __init__(self, what: str, name: str, within: str, known: Iterable[str] = ()) -> None:
        there = list(known)
        super().__init__(
            f"{within} has no {what} {name!r}.{did_you_mean(name, there)}"
            f"{f' There are: {listed(there)}.' if there else ''}"
        )
        self.what = what
        self.name = name


class RecordExists(PersistenceError):
    """The name is taken already, where it must be the only one."""

    def __init__(self, what: str, name: str, within: str) -> None:
        super().__init__(f"{within} has a {what} {name!r} already; use it, or choose another name")
        self.what = what
        self.name = name


class HistoryKept(PersistenceError):
    """What was to be deleted still has messages, and those go by retention only."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(
            f"{what} {name!r} still has message history, which is never deleted with it:"
            " let retention delete its messages first. What proves that they went rightly"
            " stays until a tenant is deleted by force"
        )
        self.what = what
        self.name = name


class HistoryHeld(PersistenceError):
    """A legal hold forbids to delete or redact it."""

    def __init__(self, what: str, hold: str) -> None:
        super().__init__(
            f"{what} is on legal hold ({hold}): whoever may, releases it first with"
            f" actorbus audit hold {hold} --release"
        )
        self.hold = hold


class InvalidSettings(ActorbusError):
    """A setting that cannot be meant."""


class Reject(Exception):
    """Raised by a handler to refuse a message without failing.

    The asker gets ``Rejected``; a tell becomes a dead letter with the reason ``rejected``.
    """

    def __init__(self, why: str = "no reason given") -> None:
        super().__init__(why)
        self.why = why
