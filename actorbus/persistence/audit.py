"""``Audit``: where history is kept, and what it answers.

SQLAlchemy is imported with the first question or the first record, not with this file.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from actorbus.clock import SystemClock
from actorbus.errors import AuditUnavailable, InvalidQuery, UnknownRecord
from actorbus.message import IdSource, parse_id
from actorbus.persistence import cursors
from actorbus.persistence.answers import Page
from actorbus.persistence.filters import MOST, checked, checked_limit
from actorbus.persistence.following import Following

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TextIO, Unpack
    from uuid import UUID

    from actorbus.clock import Clock
    from actorbus.message import MessageId
    from actorbus.persistence.acts import Act
    from actorbus.persistence.anchors import Anchor, Proof
    from actorbus.persistence.answers import Counts, Exchange, MessageView, Times, Tree
    from actorbus.persistence.database import Database
    from actorbus.persistence.filters import Filter, Filters
    from actorbus.persistence.holds import Hold
    from actorbus.persistence.queries import Reader
    from actorbus.persistence.recorder import Recorder
    from actorbus.persistence.repositories import AgentRunView, ProjectView, RunView
    from actorbus.persistence.retention import Deleted, Limits
    from actorbus.persistence.verify import Verification
    from actorbus.settings import Settings
    from actorbus.telemetry import Telemetry

T = TypeVar("T")

_AT_ONCE: Final = 500
_FLUSH: Final = 5.0


def _names(given: str | Iterable[str]) -> tuple[str, ...]:
    """Names, of which there may be one."""
    return (given,) if isinstance(given, str) else tuple(given)


class Audit:
    """A history database, seen by one project of one tenant; a node's is seen by the node's.

    ``strict``: a message is delivered only once its record is committed. ``mask``: what is
    masked before it is written (``masking.py``): True for all, or some of ``card``, ``email``,
    ``iban``, ``phone``, ``secrets``. ``anchors``: where anchors go (``anchors.py``): a file, a
    callback, False for nowhere; True is a file beside the database, if that is one.
    ``signing_key``: a PEM file with the Ed25519 key that signs them.

    Every question first writes what the node has not written yet (for at most 5 s), so an
    answer holds all that happened before it was asked. An Audit without a node reads a history
    that exists and never makes one.

    Raises:
        AuditUnavailable: by any method: the database cannot be used; the error says what would
            have worked.
    """

    def __init__(
        self,
        url: str,
        *,
        strict: bool = False,
        tenant: str = "default",
        project: str = "default",
        mask: bool | str | Iterable[str] = False,
        anchors: bool | str | Path | Callable[[Anchor], None] = True,
        signing_key: str | Path | None = None,
    ) -> None:
        self.strict = strict
        self._mask = mask if isinstance(mask, bool) else _names(mask)
        self._anchors = anchors
        self._signing_key = signing_key
        self.tenant = tenant
        self.project = project
        self._url = url
        self._opened: Database | None = None
        self._recorder: Recorder | None = None

    @property
    def url(self) -> str:
        """The URL without its secrets."""
        return self._database().shown

    @property
    def path(self) -> Path | None:
        """The file, for a history that is one."""
        return self._database().path

    def bind(self, tenant: str, project: str) -> Audit:
        """The same database, seen by another project."""
        bound = Audit(
            self._url,
            strict=self.strict,
            tenant=tenant,
            project=project,
            mask=self._mask,
            anchors=self._anchors,
            signing_key=self._signing_key,
        )
        bound._opened = self._database().of(tenant)
        return bound

    def record(
        self, *, node: str, settings: Settings, telemetry: Telemetry, clock: Clock
    ) -> Recorder:
        """The recorder of a node, for this tenant and project; start it, and close it."""
        from actorbus.persistence.recorder import Recorder

        self._recorder = Recorder(
            self._database(),
            telemetry=telemetry,
            settings=settings,
            node=node,
            clock=clock,
            tenant=self.tenant,
            project=self.project,
            strict=self.strict,
            proof=self._proof(),
        )
        return self._recorder

    def message(self, id: MessageId | str | UUID) -> MessageView | None:
        """One message; None if history has none of that id."""
        return self._reader().message(parse_id(id))

    def conversation(self, id: MessageId | str | UUID, *, limit: int = MOST) -> list[MessageView]:
        """The messages of one conversation in the order they were sent, the first `limit`.

        A message stands behind the one that caused it, also where the clocks of their nodes
        say otherwise.

        `id` is its ``correlation_id``, or the id of any message in it.
        """
        return self._reader().conversation(parse_id(id), checked_limit(limit))

    def draw(
        self,
        id: MessageId | str | UUID,
        *,
        format: str = "svg",
        limit: int = MOST,
        width: int = 100,
    ) -> str:
        """One conversation as a drawing: who said what to whom.

        `format`: ``text`` (`width` columns), ``mermaid``, ``svg``, ``json``, or ``chrome-trace``,
        which Perfetto opens.

        Raises:
            InvalidQuery: no such format.
        """
        from actorbus.persistence.drawing import draw

        return draw(self.conversation(id, limit=limit), format, width=width)

    def messages(
        self,
        *,
        limit: int = 100,
        before: MessageId | str | UUID | None = None,
        **filters: Unpack[Filters],
    ) -> list[MessageView]:
        """Messages that match every filter given, newest first, at most `limit`.

        The filters are those of ``Filters``. The next page is `before` the ``id`` of this
        page's last message. It looks until it has found so many: where few of very many match
        and no index leads to them, ``page`` answers in bounded time.

        Raises:
            InvalidQuery: a filter that cannot be meant.
            InvalidName: `before` is no message id.
        """
        start = None if before is None else parse_id(before)
        return self._reader().messages(checked(**filters), start, checked_limit(limit))

    def page(
        self, *, limit: int = 100, cursor: str | None = None, **filters: Unpack[Filters]
    ) -> Page:
        """Some of the messages that match every filter given, newest first.

        `cursor` is ``next`` of the page before, asked with the same filters. It stays valid
        while new messages arrive, and those are not on the pages after it.

        Raises:
            InvalidQuery: a filter or cursor that cannot be meant.
        """
        wanted, limit = checked(**filters), checked_limit(limit)
        start = None if cursor is None else cursors.page_start(cursor, wanted)
        views, rest = self._reader().page(wanted, start, limit)
        return Page(views, None if rest is None else cursors.of_page(wanted, rest))

    def follow(
        self,
        *,
        after: str | None = None,
        last: int = 0,
        poll: float = 0.5,
        idle: float | None = None,
        **filters: Unpack[Filters],
    ) -> Following:
        """Messages as their records are committed, from now on or `after` a cursor.

        First come the newest `last` ones, oldest first. It looks every `poll` seconds, and ends
        when nothing was new for `idle` seconds or when it is closed. A status or reason is that
        which a message has when it is read.

        Raises:
            InvalidQuery: a filter or cursor that cannot be meant.
        """
        if after is not None and last:
            raise InvalidQuery("follow after= a cursor, or from the last= messages: not both")
        if not poll > 0:
            raise InvalidQuery(f"poll is {poll!r}: it must be more than 0 seconds")
        wanted = checked(**filters)
        self._chained()
        return Following(
            self._reader,
            wanted,
            after=after,
            last=last and checked_limit(last),
            poll=poll,
            idle=idle,
        )

    def tree(
        self, id: MessageId | str | UUID, *, depth: int = 100, limit: int = 1_000
    ) -> Tree | None:
        """What caused a message and what it caused, at most `depth` steps up and down.

        None if history has no message of that id.
        """
        if not 1 <= depth <= MOST:
            raise InvalidQuery(f"depth is {depth}: it must be from 1 to {MOST:,}")
        return self._reader().tree(parse_id(id), depth=depth, limit=checked_limit(limit))

    def talk(self, *, limit: int = 1_000, **filters: Unpack[Filters]) -> list[Exchange]:
        """Who sent to whom how often, the `limit` most frequent pairs.

        A broadcast counts for each recipient whose outcome is known. Takes time in proportion
        to the messages that match. `status` and `reason` match here what SQL can tell: also a
        message that had them before a later delivery.
        """
        return self._reader().talk(checked(**filters), checked_limit(limit))

    def times(self, *, limit: int = 1_000, **filters: Unpack[Filters]) -> list[Times]:
        """How long messages waited and took, by recipient and type, the `limit` most frequent.

        Every delivery that began counts, retries too. Takes time in proportion to the messages
        that match, as ``talk`` does.
        """
        return self._reader().times(checked(**filters), checked_limit(limit))

    def every(self, **filters: Unpack[Filters]) -> Iterator[MessageView]:
        """Each message that matches, oldest first, in constant memory; none sent from now on.

        Raises:
            InvalidQuery: a filter that cannot be meant.
        """
        return self._every(checked(**filters))

    def export(
        self,
        to: str | Path | TextIO,
        *,
        format: str = "jsonl",
        overwrite: bool = False,
        **filters: Unpack[Filters],
    ) -> int:
        """Write each message that matches, oldest first; how many there were.

        `to` is a path or a stream of text. A file is there under its name only when it is
        whole. `format` is ``jsonl``, ``csv`` or ``cloudevents``.

        Raises:
            InvalidQuery: a filter or format that cannot be meant.
            OSError: the file cannot be written, or history itself is kept in it;
                FileExistsError: it is there, and `overwrite` is not set.
        """
        from actorbus.persistence.export import lines
        from actorbus.persistence.files import whole_file

        count = 0

        def counted() -> Iterator[MessageView]:
            nonlocal count
            for view in self.every(**filters):
                count += 1
                yield view

        text = lines(format, counted())
        if isinstance(to, (str, os.PathLike)):
            self._refuse_own(Path(to))
            with whole_file(Path(to), overwrite=overwrite) as file:
                file.writelines(text)
        else:
            to.writelines(text)
        return count

    def counts(self) -> Counts:
        """How many messages there are, and how they stand."""
        return self._reader().counts()

    def projects(self, *, limit: int = 100, before: MessageId | None = None) -> list[ProjectView]:
        """The tenant's projects, newest first; the next page is `before` the last one's ``id``.

        A project is there from its first record on. Questions about one that is not there are
        answered with nothing.

        Raises:
            InvalidQuery: `limit` is not from 1 to 10,000.
            UnknownRecord: the tenant has no record yet.
        """
        from actorbus.persistence.repositories import Projects, TenantName

        self._written()
        projects = Projects(self._database(), clock=SystemClock())
        return projects.list(TenantName(self.tenant), limit=limit, before=before)

    def runs(self, *, limit: int = 100, before: MessageId | None = None) -> list[RunView]:
        """The project's runs, newest first; the next page is `before` the last one's ``id``.

        Raises:
            InvalidQuery: `limit` is not from 1 to 10,000.
            UnknownRecord: there is no such tenant or project, and no node of this process is
                about to write its first record.
        """
        from actorbus.persistence.repositories import Runs, TenantName

        self._written()
        runs = Runs(self._database(), clock=SystemClock())
        try:
            return runs.list(TenantName(self.tenant), self.project, limit=limit, before=before)
        except UnknownRecord:
            if self._recorder is None:
                raise
            return []  # a project is there from its first record on

    def agent_runs(
        self, run: str, *, limit: int = 100, before: MessageId | None = None
    ) -> list[AgentRunView]:
        """The parts that agents had in a run, newest first, paged like ``runs``.

        Raises:
            InvalidQuery: `limit` is not from 1 to 10,000.
            UnknownRecord: the project has no such run.
        """
        from actorbus.persistence.repositories import AgentRuns, TenantName

        self._written()
        parts = AgentRuns(self._database(), clock=SystemClock())
        return parts.list(TenantName(self.tenant), self.project, run, limit=limit, before=before)

    def verify(
        self,
        *,
        public_key: str | Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Verification:
        """Whether the tenant's history is as it was written, and if not, where it is not.

        `public_key`: a PEM file; then anchors must be signed with its key. `progress` is told
        (rows done, rows in all) now and then.
        """
        from actorbus.persistence.anchors import AnchorFile
        from actorbus.persistence.verify import verify

        self._written()
        place = self._proof().anchors
        return verify(
            self._chained(),
            self.tenant,
            anchors=place.path if isinstance(place, AnchorFile) else None,
            public_key=None if public_key is None else Path(public_key),
            progress=progress,
        )

    def anchors(self) -> list[Anchor]:
        """The tenant's anchors, in the order they were written; none of a callback."""
        from actorbus.persistence.acts import tenant_key
        from actorbus.persistence.anchors import AnchorFile

        place = self._proof().anchors
        if not isinstance(place, AnchorFile):
            return []
        with self._database().reading() as connection:
            mine = tenant_key(connection, self.tenant).to_bytes(16).hex()
        return [anchor for anchor in place.read()[0] if anchor.tenant == mine]

    def redact(self, id: MessageId | str | UUID, *, actor: str, reason: str) -> bool:
        """Take away for good what a message said; False if it was away already.

        That is its payload, its headers, its errors and the errors that answered it. What became
        known of it later is taken by redacting again.

        Raises:
            HistoryHeld: the message is on legal hold.
            UnknownRecord: history has no such message.
        """
        from actorbus.persistence.redaction import redact

        return self._act(redact, parse_id(id), actor, reason)

    def retain(self, limits: Limits, *, actor: str, reason: str) -> list[Deleted]:
        """Delete the tenant's oldest history, down to the limits and as holds allow."""
        from actorbus.persistence.retention import retain

        return self._act(retain, limits, actor, reason)

    def hold(self, what: str, *, actor: str, reason: str) -> bool:
        """Keep from deletion and redaction: ``tenant``, ``run:NAME`` or ``conversation:ID``.

        The ID is that of any message of the conversation. False if that is on hold already.

        Raises:
            UnknownRecord: history has no message of that conversation. A run may be held
                before its first message.
        """
        from actorbus.persistence.holds import Hold, hold

        return self._act(hold, Hold.parse(what), actor, reason)

    def release(self, what: str, *, actor: str, reason: str) -> bool:
        """End a hold; False if there is none."""
        from actorbus.persistence.holds import Hold, release

        return self._act(release, Hold.parse(what), actor, reason)

    def owns(self, path: Path) -> bool:
        """Whether history itself, or its anchors, are kept in that file."""
        from actorbus.persistence.anchors import beside

        database, told = self._database(), self._anchors
        anchors = [Path(told)] if isinstance(told, (str, Path)) else []
        if (usual := beside(database)) is not None:
            anchors.append(usual)
        return database.owns(path) or path.resolve() in {one.resolve() for one in anchors}

    def keeps_any(self, what: str) -> bool:
        """Whether there is a message yet that a hold on `what` would keep."""
        from actorbus.persistence.holds import Hold, keeps_any

        self._written()
        return keeps_any(self._chained(), self.tenant, Hold.parse(what))

    def holds(self) -> list[tuple[Hold, Act]]:
        """What is on hold, and who put it there."""
        from actorbus.persistence.holds import holds

        return holds(self._chained(), self.tenant)

    def _act(self, do: Callable[..., T], what: object, actor: str, reason: str) -> T:
        from actorbus.persistence.acts import check_words
        from actorbus.persistence.anchors import anchor_acts

        check_words(actor, reason)
        self._written()
        with self._database().reading():
            pass  # what changes history brings its schema up to date, and must not make one
        proof, now = self._proof(), time.time()
        ids = IdSource()
        done = do(self._database(), self.tenant, what, actor=actor, reason=reason, ids=ids, now=now)
        anchor_acts(self._database(), self.tenant, proof, now)
        return done

    def _refuse_own(self, path: Path) -> None:
        if self.owns(path):
            says = "history itself is kept there: name another file"
            raise OSError(errno.EPERM, says, str(path))

    def _written(self) -> None:
        if self._recorder is not None:
            self._recorder.flush(_FLUSH)

    def close(self) -> None:
        """Let go of the database; one in memory is gone. Idempotent."""
        if self._opened is not None:
            self._opened.close()

    def _every(self, wanted: Filter) -> Iterator[MessageView]:
        reader = self._reader()
        newest = reader.newest()
        start: MessageId | None = None
        while newest is not None:
            views, start = reader.onward(wanted, start, _AT_ONCE)
            for view in views:
                if view.id > newest:
                    return
                yield view
            if start is None or start >= newest:
                return

    def _reader(self) -> Reader:
        from actorbus.persistence.queries import Reader

        if self._recorder is not None:
            self._recorder.flush(_FLUSH)
        return Reader(self._database(), self.tenant, self.project)

    def _proof(self) -> Proof:
        from actorbus.persistence.anchors import Proof

        return Proof.of(
            self._database(),
            mask=self._mask,
            anchors=self._anchors,
            signing_key=self._signing_key,
        )

    def _chained(self) -> Database:
        """The database, whose schema is one with chains."""
        from sqlalchemy import inspect

        database = self._database()
        with database.reading() as connection:
            if not inspect(connection).has_table("chains"):
                raise AuditUnavailable(
                    f"an older actorbus wrote {database.shown}, which has no chains yet: a node"
                    " started on it brings it up to date"
                )
        return database

    def _database(self) -> Database:
        from actorbus.persistence.database import Database

        if self._opened is None:
            self._opened = Database(self._url, durable=self.strict).of(self.tenant)
        return self._opened

    def __repr__(self) -> str:
        return f"<Audit of {self.project!r} of tenant {self.tenant!r}>"
