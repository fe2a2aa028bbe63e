from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorbus.bus.transports.redis.items import Item
from actorbus.bus.transports.redis.log import Along, Letter
from actorbus.bus.transports.redis.ownership import Cursor, Ownership
from actorbus.bus.transports.redis.reading import ACK_BATCH, Reading

MOST = ACK_BATCH - ACK_BATCH // 4
"""Messages that are not urgent."""


def fetch(inbox: Reading, items: list[Item], unseen: int = 0) -> list[Item]:
    """What the agent gets of it."""
    inbox.fetched(items, unseen)
    return inbox.hand_out()


def reading(depth: int = 10) -> Reading:
    return Reading(Ownership("a", "n", "1", depth, (0, 0, 0, 0), (0, 0, 0, 0), True))


def item(position: int, level: int = 2, name: str | None = None) -> Item:
    key = (name or f"{level}.{position}").encode().ljust(16)
    return Item(level, position, key, 0, key)


def test_what_was_fetched_moves_the_cursor_of_its_level() -> None:
    inbox = reading()

    assert fetch(inbox, [item(0), item(1), item(0, level=0)], 7) == [
        item(0, level=0),
        item(0),
        item(1),
    ]

    assert [cursor.position for cursor in inbox.cursors] == [1, 0, 2, 0]
    assert (inbox.in_hand, inbox.unseen) == (3, 7)


def test_a_level_is_done_up_to_the_first_message_that_is_not() -> None:
    inbox = reading()
    fetch(inbox, [item(0), item(1), item(2)], 0)

    inbox.done(item(2).id)
    inbox.done(item(0).id)

    (_, _, up_to, _) = inbox.to_acknowledge().up_to
    assert up_to == Cursor(1, item(0).id)
    inbox.done(item(1).id)
    (_, _, up_to, _) = inbox.to_acknowledge().up_to
    assert up_to == Cursor(3, item(2).id)
    assert inbox.owes == 3


def test_a_letter_goes_with_the_acknowledgement_of_its_message() -> None:
    inbox = reading()
    fetch(inbox, [item(0), item(1)], 0)
    letter = Letter(0, 0, "rejected", 1, "why")

    inbox.done(item(1).id, letter)
    before = inbox.to_acknowledge()
    inbox.done(item(0).id)
    after = inbox.to_acknowledge()
    inbox.acknowledged(after)

    assert before.letters == []
    assert after.letters == [Letter(2, 1, "rejected", 1, "why")]
    assert inbox.to_acknowledge()[1:3] == (after.up_to, [])
    assert inbox.owes == 0


def test_a_message_is_done_once() -> None:
    inbox = reading()
    fetch(inbox, [item(0)], 0)

    assert inbox.done(item(0).id)
    assert not inbox.done(item(0).id)
    assert not inbox.done(b"never heard of ")


def test_after_a_reset_what_comes_again_is_left_out() -> None:
    inbox = reading()
    fetch(inbox, [item(0), item(1), item(2)], 0)
    inbox.done(item(0).id)

    inbox.reset((0, 0, 0, 0))
    new = fetch(inbox, [item(0), item(1), item(2, name="another")], 0)

    assert new == [item(2, name="another")]
    assert inbox.to_acknowledge().up_to[2].position == 1
    inbox.done(item(1).id)
    assert inbox.to_acknowledge().up_to[2].position == 2


@given(order=st.permutations(range(12)), acknowledge=st.sets(st.integers(0, 11)))
def test_in_whatever_order_messages_are_done_none_is_acknowledged_before_it_is(
    order: list[int], acknowledge: set[int]
) -> None:
    inbox = reading()
    fetch(inbox, [item(position) for position in range(12)], 0)
    done: set[int] = set()

    for step, position in enumerate(order):
        inbox.done(item(position).id)
        done.add(position)
        now = inbox.to_acknowledge()
        assert set(range(now.up_to[2].position)) <= done
        if step in acknowledge:
            inbox.acknowledged(now)
            assert inbox.owes == 0

    assert inbox.to_acknowledge().up_to[2].position == 12
    assert inbox.in_hand == 0


def test_no_more_is_handed_out_than_may_run_twice() -> None:
    inbox = reading()

    first = fetch(inbox, [item(position) for position in range(40)])
    for one in first[:5]:
        inbox.done(one.id)
    before = inbox.hand_out()
    inbox.acknowledged(inbox.to_acknowledge())
    then = inbox.hand_out()

    assert [one.position for one in first] == list(range(MOST))
    assert before == []
    assert [one.position for one in then] == list(range(MOST, MOST + 5))


def test_what_is_urgent_finds_room_where_everything_else_is_in_hand() -> None:
    inbox = reading()
    fetch(inbox, [item(position) for position in range(40)])

    handed = fetch(inbox, [item(position, 0) for position in range(10)])

    assert [(one.level, one.position) for one in handed] == [(0, at) for at in range(4)]


def test_levels_take_turns_so_that_none_starves() -> None:
    inbox = reading()

    handed = fetch(inbox, [item(at, level) for level in range(4) for at in range(20)])

    rounds = [[one.level for one in handed]]
    while len(rounds) < 5:
        for one in handed:
            inbox.done(one.id)
        inbox.acknowledged(inbox.to_acknowledge())
        handed = inbox.hand_out()
        rounds.append([one.level for one in handed])
    served = [level for one in rounds for level in one]
    assert served[:30] == ([0] * 8 + [1] * 4 + [2] * 2 + [3]) * 2


def test_what_a_former_owner_may_have_died_of_is_handed_out_alone() -> None:
    inbox = Reading(Ownership("a", "n", "1", 10, (0, 0, 0, 0), (0, 0, 2, 0), True))

    handed = [fetch(inbox, [item(0), item(1), item(2), item(3)])]
    for _ in range(2):
        first = inbox.admit()
        assert first is not None
        handed.append([first, *inbox.hand_out()])
        inbox.done(first.id)
        handed.append(inbox.hand_out())
        inbox.acknowledged(inbox.to_acknowledge())
        handed.append(inbox.hand_out())

    assert [[one.position for one in some] for some in handed] == [[], [0], [], [], [1], [], [2, 3]]
    assert inbox.suspect is None
    assert inbox.admit() is None


def test_a_suspect_is_tried_until_its_end_is_acknowledged() -> None:
    inbox = Reading(Ownership("a", "n", "1", 10, (0, 0, 0, 0), (0, 0, 1, 0), True, (2, 0)))
    fetch(inbox, [item(0)])
    repeated = inbox.is_repeated
    first = inbox.admit()
    assert first is not None

    tried = [inbox.tries]
    inbox.done(first.id)
    tried.append(inbox.tries)
    inbox.acknowledged(inbox.to_acknowledge())
    tried.append(inbox.tries)

    assert repeated
    assert tried == [True, True, False]


def test_the_end_of_a_suspect_is_acknowledged_at_once() -> None:
    inbox = Reading(Ownership("a", "n", "1", 10, (0, 0, 0, 0), (0, 0, 1, 0), True, (2, 0)))
    fetch(inbox, [item(0), item(1)])
    at_first = inbox.enough

    first = inbox.admit()
    assert first is not None
    with_it = inbox.enough
    inbox.done(first.id)
    inbox.acknowledged(inbox.to_acknowledge())
    inbox.hand_out()

    assert at_first == inbox.enough > 1
    assert with_it == 1


def test_an_agent_that_ends_gets_no_more() -> None:
    inbox = reading()
    inbox.ending = True

    assert fetch(inbox, [item(0)]) == []
    assert inbox.waiting == 1


def along(*items: Item, before: bytes = b"", by: int = 1) -> Along:
    first = items[0]
    return Along("a", str(by), first.level, Cursor(first.position, before), items, 0)


def test_what_comes_along_with_a_bell_is_as_if_it_were_fetched() -> None:
    inbox = reading(depth=0)
    fetch(inbox, [item(0)])

    taken = inbox.came_along(along(item(1), item(2), before=item(0).id))

    assert taken
    assert inbox.hand_out() == [item(1), item(2)]
    assert inbox.cursors[2] == Cursor(3, item(2).id)


@pytest.mark.parametrize(
    "what",
    [
        along(item(2), before=item(1).id),
        along(item(0)),
        along(item(1), before=item(0).id, by=2),
        along(item(1), before=item(9).id),
    ],
    ids=["one is missing", "it is known", "of another owner", "of another log"],
)
def test_what_would_not_be_fetched_next_does_not_come_along(what: Along) -> None:
    inbox = reading(depth=0)
    fetch(inbox, [item(0)])

    assert not inbox.came_along(what)

    assert inbox.cursors[2] == Cursor(1, item(0).id)
    assert inbox.hand_out() == []


def test_nothing_comes_along_while_more_is_to_be_fetched() -> None:
    behind, asking = reading(depth=1), reading(depth=0)
    asking.owes_a_fetch = True

    assert not behind.came_along(along(item(0)))
    assert not asking.came_along(along(item(0)))


def test_what_is_acknowledged_says_how_many_bytes_that_frees() -> None:
    inbox = reading()
    fetch(inbox, [item(0), item(1), item(0, level=0)], 0)

    inbox.done(item(1).id)
    inbox.done(item(0, level=0).id)
    first = inbox.to_acknowledge()
    inbox.done(item(0).id)
    inbox.acknowledged(first)

    assert first.sizes == (46, 0, 0, 0)
    assert inbox.to_acknowledge().sizes == (0, 0, 92, 0)


def test_of_what_came_without_its_bytes_the_server_counts_them() -> None:
    inbox = reading()
    fetch(inbox, [item(0), item(1)._replace(blob=b""), item(2)], 0)

    inbox.done(item(0).id)
    first = inbox.to_acknowledge()
    inbox.done(item(1).id)
    inbox.acknowledged(first)
    second = inbox.to_acknowledge()
    inbox.acknowledged(second)
    inbox.done(item(2).id)

    assert [one.sizes[2] for one in (first, second, inbox.to_acknowledge())] == [46, None, 46]


def test_an_acknowledgement_from_before_a_reset_says_nothing_of_the_log_after_it() -> None:
    inbox = reading()
    fetch(inbox, [item(0), item(1)], 0)
    inbox.done(item(0).id)
    before = inbox.to_acknowledge()
    inbox.reset((0, 0, 0, 0))

    inbox.acknowledged(before)

    assert inbox.ownership.heads == (0, 0, 0, 0)
    assert fetch(inbox, [item(0), item(1), item(2)], 0) == [item(2)]


@given(st.lists(st.integers(1, 9), max_size=30))
def test_a_level_that_waits_alone_uses_up_the_credits_that_it_would_in_turns(
    steps: list[int],
) -> None:
    alone, in_turns = reading(), reading()
    position = 0

    for fetched in steps:
        few = [item(position + at) for at in range(fetched)]
        position += fetched
        alone._most = in_turns._most = (alone._out + fetched // 2 + 1,) * 4
        for one in (alone, in_turns):
            one.fetched(few, 0)
        assert alone.hand_out() == in_turns._in_turns()
        assert alone._credits == in_turns._credits


def test_a_copy_of_what_is_in_hand_waits_until_that_is_done() -> None:
    inbox = reading()
    copy, altered = item(1, name="2.0"), Item(2, 2, item(0).id, 0, b"altered")
    letter = Letter(0, 0, "refused", 1, "replayed")

    first = fetch(inbox, [item(0), copy, altered, item(3)])
    others = fetch(inbox, [item(0, level=0, name="2.0"), item(1, level=0)])
    inbox.done(item(0).id)
    handed = []
    while more := inbox.hand_out():
        handed += more
        for one in more:
            inbox.done(one.id, letter if one.blob == b"altered" else None)

    assert (first, others) == ([item(0)], [])
    assert {(one.level, one.position) for one in handed} == {(0, 0), (0, 1), (2, 1), (2, 2), (2, 3)}
    done = inbox.to_acknowledge()
    assert [cursor.position for cursor in done.up_to] == [2, 0, 4, 0]
    assert done.letters == [Letter(2, 2, "refused", 1, "replayed")]


def test_a_copy_is_known_from_what_was_in_hand_when_the_log_was_reset() -> None:
    inbox = reading()
    fetch(inbox, [item(0)])

    inbox.reset((0, 0, 0, 0))
    held = fetch(inbox, [item(0), item(1, name="2.0")])
    inbox.done(item(0).id)
    [copy] = inbox.hand_out()
    inbox.done(copy.id)

    assert (held, copy.position) == ([], 1)
    assert inbox.to_acknowledge().up_to[2].position == 2


def test_what_ends_before_it_is_found_again_says_nothing_of_where_it_lay() -> None:
    inbox = reading()
    fetch(inbox, [item(0), item(1), item(2)])
    inbox.reset((0, 0, 0, 0))
    inbox.done(item(1).id)
    inbox.done(item(2).id)

    new = fetch(inbox, [item(0), item(1, name="another"), item(2, name="2.1")])
    inbox.done(item(0).id)

    assert new == [item(1, name="another")]
    assert inbox.to_acknowledge().up_to[2] == Cursor(1, item(0).id)
    inbox.done(new[0].id)
    assert inbox.to_acknowledge().up_to[2] == Cursor(3, item(2, name="2.1").id)


def test_what_was_done_and_comes_again_after_a_reset_counts_until_it_is_acknowledged() -> None:
    inbox = reading()
    all_of_them = [item(at) for at in range(3 * MOST)]
    for one in fetch(inbox, all_of_them[:MOST])[:8]:
        inbox.done(one.id)
    inbox.reset((0, 0, 0, 0))

    before = fetch(inbox, all_of_them)
    inbox.acknowledged(inbox.to_acknowledge())
    after = inbox.hand_out()

    assert before == []
    assert after == all_of_them[MOST : MOST + 8]


def test_what_was_in_hand_and_never_comes_again_takes_nobodys_place_once_it_is_done() -> None:
    inbox = reading()
    for one in fetch(inbox, [item(at) for at in range(MOST)]):
        inbox.done(one.id)
    fetch(inbox, [item(at) for at in range(MOST, 2 * MOST)])
    inbox.acknowledged(inbox.to_acknowledge())
    lost = inbox.hand_out()
    inbox.reset((0, 0, 0, 0))
    for one in lost:
        inbox.done(one.id)

    new = [item(at, name=f"new {at}") for at in range(MOST)]

    assert fetch(inbox, new) == new


@pytest.mark.parametrize("ends_before_the_reset", [True, False])
def test_a_letter_goes_with_its_message_to_where_that_is_found_again(
    ends_before_the_reset: bool,
) -> None:
    inbox = reading()
    fetch(inbox, [item(0), item(1)])
    letter = Letter(2, 0, "rejected", 1, "why")
    if ends_before_the_reset:
        inbox.done(item(0).id, letter)
        inbox.reset((0, 0, 0, 0))
    else:
        inbox.reset((0, 0, 0, 0))
        inbox.done(item(0).id, letter)
    assert inbox.to_acknowledge().letters == []

    fetch(inbox, [item(0, name="2.1"), item(1, name="2.0")])
    inbox.done(item(1).id)

    assert inbox.to_acknowledge().letters == [Letter(2, 1, "rejected", 1, "why")]
