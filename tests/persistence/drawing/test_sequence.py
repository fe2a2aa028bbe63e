from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorbus.message import MessageId, Reason, Status
from actorbus.persistence.drawing.sequence import ROW, Diagram, lay_out


def _rows(diagram: Diagram) -> list[int]:
    """The numbers of the messages from the top."""
    return [arrow.view.id & 0xFF for arrow in diagram.arrows]


def test_lanes_come_in_the_order_in_which_agents_appear(small: Any) -> None:
    assert lay_out(small).lanes == (None, "boss", "counter", "spare", "ghost")


def test_a_reply_goes_from_who_was_asked_to_who_asked(small: Any) -> None:
    diagram = lay_out(small)

    reply = diagram.arrows[2]

    assert diagram.lanes[reply.source] == "counter"
    assert [diagram.lanes[end.lane] for end in reply.ends] == ["boss"]
    assert (reply.answer, reply.wrong) == (True, False)


def test_a_reply_to_nobody_in_particular_goes_outside(small: Any) -> None:
    diagram = lay_out(small)

    assert diagram.lanes[diagram.arrows[10].ends[0].lane] is None


def test_a_message_to_oneself_ends_where_it_began(small: Any) -> None:
    arrow = lay_out(small).arrows[3]

    assert [end.lane for end in arrow.ends] == [arrow.source]


def test_a_broadcast_reaches_every_recipient_with_what_became_of_it_there(small: Any) -> None:
    diagram = lay_out(small)

    broadcast = diagram.arrows[4]

    assert [(diagram.lanes[end.lane], end.status, end.reason) for end in broadcast.ends] == [
        ("counter", Status.HANDLED, None),
        ("spare", Status.DEAD, Reason.NO_HANDLER),
    ]
    assert not broadcast.wrong


def test_of_several_tries_the_last_tells_what_became_of_it(view: Any, delivery: Any) -> None:
    tries = [
        delivery("bob", (1, 2), Status.DEAD, Reason.HANDLER_ERROR),
        delivery("bob", (8, 9), attempt=2),
    ]

    diagram = lay_out([view(0, "alice", None, kind="event", topic="t", deliveries=tries)])

    assert [end.status for end in diagram.arrows[0].ends] == [Status.HANDLED]
    assert [bar.delivery.attempt for bar in diagram.bars] == [1, 2]


def test_what_nobody_took_has_no_end(small: Any) -> None:
    assert lay_out(small).arrows[6].ends == ()


def test_a_message_that_is_not_handled_yet_waits(small: Any) -> None:
    assert [arrow.waits for arrow in lay_out(small).arrows] == [False] * 6 + [
        True,
        False,
        False,
        True,
        False,
    ]


def test_dead_letters_failures_and_errors_are_wrong(view: Any) -> None:
    views = [
        view(0, "a", "b", status=Status.DEAD),
        view(1, "a", "b", status=Status.FAILED),
        view(2, "a", "b", kind="error", status=Status.HANDLED),
        view(3, "a", None, kind="broadcast", status=Status.DEAD, deliveries=[]),
        view(4, "a", "b", status=Status.HANDLED),
    ]

    assert [arrow.wrong for arrow in lay_out(views).arrows] == [True, True, True, True, False]


def test_a_handling_encloses_what_was_sent_meanwhile(small: Any) -> None:
    diagram = lay_out(small)

    boss = next(bar for bar in diagram.bars if bar.arrow == 0)
    counter = next(bar for bar in diagram.bars if bar.arrow == 1)

    inside = [boss.top < arrow.y < boss.bottom for arrow in diagram.arrows]
    assert inside == [False] + [True] * 10
    assert boss.top < counter.top < diagram.arrows[2].y < counter.bottom < boss.bottom


def test_handlings_that_follow_at_once_share_a_slot(view: Any) -> None:
    views = [
        view(0, None, "bob", kind="request", at=0, handled=(5, 10)),
        view(1, None, "bob", kind="request", at=1, handled=(10, 20)),
        view(2, "bob", None, kind="reply", at=10, cause=0),
    ]

    diagram = lay_out(views)

    first, second = diagram.bars
    assert (first.slot, second.slot) == (0, 0)
    assert first.top < diagram.arrows[2].y < first.bottom < second.top


def test_what_a_handling_sends_in_its_first_instant_is_inside_it(view: Any) -> None:
    views = [
        view(0, None, "bob", at=0, handled=(5, 10)),
        view(1, None, "bob", at=1, handled=(10, 20)),
        view(2, "bob", "eve", at=10, cause=1, handled=(10, 10)),
        view(3, "eve", "tom", at=10, cause=2),
    ]

    diagram = lay_out(views)

    second = next(bar for bar in diagram.bars if bar.arrow == 1)
    assert second.top < diagram.arrows[2].y < diagram.arrows[3].y < second.bottom


def test_handlings_at_the_same_time_lie_side_by_side(view: Any) -> None:
    views = [
        view(0, None, "bob", at=0, handled=(5, 20)),
        view(1, None, "bob", at=1, handled=(10, 30)),
        view(2, None, "bob", at=2, handled=(25, 40)),
    ]

    assert [bar.slot for bar in lay_out(views).bars] == [0, 1, 0]


def test_an_effect_stands_below_its_cause_whatever_the_clocks_say(view: Any) -> None:
    views = [
        view(3, "tom", "ann", at=2, cause=2),
        view(2, "eve", "tom", at=5, cause=1),
        view(1, "bob", "eve", at=90),
        view(0, None, "bob", at=50),
    ]

    diagram = lay_out(views)

    assert _rows(diagram) == [0, 1, 2, 3]
    assert [arrow.depth for arrow in diagram.arrows] == [0, 0, 1, 2]


def test_a_ring_of_causes_is_still_drawn(view: Any) -> None:
    views = [view(0, "a", "b", cause=2), view(1, "a", "b", cause=0), view(2, "a", "b", cause=1)]

    assert sorted(_rows(lay_out([*views, view(3, "a", "b", cause=3)]))) == [0, 1, 2, 3]


def test_a_conversation_is_laid_out_the_same_however_long_a_chain_is(view: Any) -> None:
    chain = [view(number, "a", "b", at=number, cause=number - 1) for number in range(1, 5_000)]

    assert lay_out(chain[::-1]).arrows[-1].depth == 4_998


@pytest.mark.parametrize("handlings", range(1, 12))
def test_rows_below_bars_keep_their_distance_to_the_last_bit(
    view: Any, delivery: Any, handlings: int
) -> None:
    busy = [delivery(f"agent-{number}", (1, 2)) for number in range(handlings)]
    first = view(0, None, None, kind="broadcast", deliveries=busy)

    diagram = lay_out([first, *(view(number, None, "a", at=5) for number in range(1, 8))])

    rows = [arrow.y for arrow in diagram.arrows]
    assert all(lower - upper >= ROW for upper, lower in pairwise(rows))


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_every_message_has_a_row_of_its_own(data: st.DataObject, conversations: Any) -> None:
    views = data.draw(conversations)

    diagram = lay_out(views)

    assert sorted(arrow.view.id for arrow in diagram.arrows) == sorted(one.id for one in views)
    rows = [arrow.y for arrow in diagram.arrows]
    assert all(lower - upper >= ROW for upper, lower in pairwise([0.0, *rows]))


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_causes_stand_above_their_effects(data: st.DataObject, conversations: Any) -> None:
    diagram = lay_out(data.draw(conversations))

    by_id = {arrow.view.id: arrow for arrow in diagram.arrows}
    for arrow in diagram.arrows:
        cause = by_id.get(arrow.view.causation_id or MessageId(0))
        if cause is not None and arrow.depth:
            assert cause.y < arrow.y
            assert cause.depth == arrow.depth - 1


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_what_was_before_is_above(data: st.DataObject, conversations: Any) -> None:
    diagram = lay_out(data.draw(conversations))

    for one, other in combinations(diagram.arrows, 2):
        assert one.sent <= other.sent
    for bar in diagram.bars:
        arrow = diagram.arrows[bar.arrow]
        assert arrow.y < bar.top < bar.bottom < diagram.height
        for other in diagram.arrows:
            if other.sent < bar.begins:
                assert other.y < bar.top
            if other.sent > bar.ends:
                assert other.y > bar.bottom
        for later in diagram.bars:
            if bar.ends < later.begins:
                assert bar.bottom < later.top


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_no_bar_lies_on_another(data: st.DataObject, conversations: Any) -> None:
    diagram = lay_out(data.draw(conversations))

    for one, other in combinations(diagram.bars, 2):
        if (one.lane, one.slot) == (other.lane, other.slot):
            assert one.bottom <= other.top or other.bottom <= one.top
