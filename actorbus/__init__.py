"""actorbus: the message bus that teams of agents run on.

::

    from actorbus import Agent, Node, handles

    class WordCounter(Agent):
        @handles
        def count(self, text: str) -> int:
            return len(text.split())

    with Node() as node:
        counter = node.spawn(WordCounter, name="counter")
        print(counter.ask("to be or not to be").get())
"""

from typing import TYPE_CHECKING, Any

from actorbus.actors.agent import Agent
from actorbus.actors.functions import agent
from actorbus.actors.handlers import handles
from actorbus.actors.ref import Ref
from actorbus.actors.reply import Reply
from actorbus.actors.runtime import Terminated
from actorbus.actors.schedule import Schedule
from actorbus.actors.supervision import Supervision
from actorbus.actors.topics import Subscription
from actorbus.bus import where
from actorbus.bus.dead_letters import DeadLetter
from actorbus.bus.gap import Gap
from actorbus.bus.mailbox import MailboxPolicy
from actorbus.bus.middleware import Accepted, Dead, Deliver, Handled, Retry, Send
from actorbus.errors import (
    AccessDenied,
    ActorbusError,
    ActorError,
    AgentFailed,
    AgentStopped,
    AskTimeout,
    AuditUnavailable,
    BusClosed,
    BusError,
    Cancelled,
    ContextError,
    DeadlockDetected,
    HistoryHeld,
    HistoryKept,
    InvalidArgument,
    InvalidAuditUrl,
    InvalidHandler,
    InvalidName,
    InvalidOperation,
    InvalidSettings,
    InvalidUrl,
    MailboxFull,
    MessageExpired,
    NameTaken,
    NoHandler,
    NoProvider,
    NotDrained,
    NotFlushed,
    NotReplayable,
    NotStopped,
    OwnerLost,
    PayloadTooLarge,
    PersistenceError,
    PoolExhausted,
    RecordExists,
    Reject,
    Rejected,
    StaleOwner,
    TransportUnavailable,
    Undecodable,
    UnexpectedReply,
    UnknownMessage,
    UnknownRecipient,
    UnknownRecord,
    UnknownTransport,
    UnsupportedPayload,
    Untrusted,
    VersionConflict,
    VersionNotKept,
)
from actorbus.message import (
    Ending,
    Message,
    MessageId,
    MessageKind,
    Priority,
    Reason,
    Status,
    format_id,
)
from actorbus.node import Node

if TYPE_CHECKING:
    from actorbus.persistence.audit import Audit
    from actorbus.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "Accepted",
    "AccessDenied",
    "ActorError",
    "ActorbusError",
    "Agent",
    "AgentFailed",
    "AgentStopped",
    "AskTimeout",
    "Audit",
    "AuditUnavailable",
    "BusClosed",
    "BusError",
    "Cancelled",
    "ContextError",
    "Dead",
    "DeadLetter",
    "DeadlockDetected",
    "Deliver",
    "Ending",
    "Gap",
    "Handled",
    "HistoryHeld",
    "HistoryKept",
    "InvalidArgument",
    "InvalidAuditUrl",
    "InvalidHandler",
    "InvalidName",
    "InvalidOperation",
    "InvalidSettings",
    "InvalidUrl",
    "MailboxFull",
    "MailboxPolicy",
    "Message",
    "MessageExpired",
    "MessageId",
    "MessageKind",
    "NameTaken",
    "NoHandler",
    "NoProvider",
    "Node",
    "NotDrained",
    "NotFlushed",
    "NotReplayable",
    "NotStopped",
    "OwnerLost",
    "PayloadTooLarge",
    "PersistenceError",
    "PoolExhausted",
    "Priority",
    "Reason",
    "RecordExists",
    "Ref",
    "Reject",
    "Rejected",
    "Reply",
    "Retry",
    "Schedule",
    "Send",
    "Settings",
    "StaleOwner",
    "Status",
    "Subscription",
    "Supervision",
    "Terminated",
    "TransportUnavailable",
    "Undecodable",
    "UnexpectedReply",
    "UnknownMessage",
    "UnknownRecipient",
    "UnknownRecord",
    "UnknownTransport",
    "UnsupportedPayload",
    "Untrusted",
    "VersionConflict",
    "VersionNotKept",
    "agent",
    "format_id",
    "handles",
    "where",
]


def __getattr__(name: str) -> Any:
    """What costs much to import is imported at first use."""
    if name == "Settings":
        from actorbus.settings import Settings

        return Settings
    if name == "Audit":
        from actorbus.persistence.audit import Audit

        return Audit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
