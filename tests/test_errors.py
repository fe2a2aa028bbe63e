"""The tree of errors, and the sentences that they make of their data."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from actorbus import errors
from actorbus.errors import ActorbusError, BusError, InvalidArgument, InvalidName, MailboxFull

if TYPE_CHECKING:
    from collections.abc import Iterator


def _drawn() -> Iterator[tuple[int, str]]:
    """Depth and name of each error in the docstring's drawing."""
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ((?:[│ ]   |[├└]── )*)([A-Z]\w+)", line):
            yield len(found[1]) // 4, found[2]


def _real(error: type[ActorbusError]) -> Iterator[tuple[str, str]]:
    """Every error below `error` with its parent."""
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child.__name__, error.__name__
            yield from _real(child)


def test_the_tree_that_is_drawn_is_the_tree_that_is() -> None:
    parents: dict[int, str] = {}
    drawn = set()
    for depth, name in _drawn():
        parents[depth] = name
        if depth:
            drawn.add((name, parents[depth - 1]))

    assert drawn == set(_real(ActorbusError))
    assert all(after - before <= 1 for (before, _), (after, _) in pairwise(_drawn()))


def test_an_argument_that_cannot_be_meant_is_told_from_a_name() -> None:
    argument = InvalidArgument("a timeout", -1, "it must be 0 seconds or more")
    name = InvalidName("an agent", "", "it must not be empty")

    assert str(argument) == "a timeout cannot be -1: it must be 0 seconds or more"
    assert str(name) == "'' is no name for an agent: it must not be empty"
    assert (argument.value, name.value) == (-1, "")
    assert not isinstance(argument, InvalidName)
    assert isinstance(name, InvalidArgument)
    assert isinstance(argument, BusError)


def test_braces_and_long_values_do_no_harm_to_the_sentence() -> None:
    error = InvalidArgument("a {filter}", "{0}" * 1_000, "{why}")

    assert str(error).startswith("a {filter} cannot be '{0}{0}")
    assert str(error).endswith("...: {why}")
    assert len(str(error)) < 120


def test_a_full_mailbox_says_how_many_wait_only_where_that_is_known() -> None:
    assert str(MailboxFull("a", 10_000)) == "the mailbox of 'a' is full at 10,000 waiting messages"
    assert str(MailboxFull("a", 0, "no room")) == "the mailbox of 'a' is full; no room"
