"""The mailbox: bound, order, fairness, waking and closing; nothing lost and nothing twice."""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from actorbus.bus.mailbox import WEIGHTS, WIDTH, Mailbox, MailboxPolicy, Refusal, charged_alone
from actorbus.errors import InvalidSettings
from actorbus.message import Message, Priority
from actorbus.testing.transport_contract import Receiver, run_in_threads, tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.bus.mailbox import Offered, Order, Overflow, Slots

URGENT, HIGH, NORMAL, LOW = Priority
DEADLINE: Final = 10.0


class Consumer(Receiver):
    """The one consumer of a mailbox, which can also be offered to."""

    def __init__(self, policy: MailboxPolicy | None = None, *, limit: int = 32) -> None:
        super().__init__("counter", policy, limit=limit)
        self._alternate = cycle([self._post, self._offer])

    def offer(self, payload: Any, priority: Priority = Priority.NORMAL) -> Offered:
        """Offer a message; every other one that may be without envelope is."""
        offer = next(self._alternate) if priority is NORMAL else self._offer
        return offer(tell("counter", payload, priority=priority))

    def _offer(self, message: Message[Any]) -> Offered:
        return self.mailbox.offer(message)

    def _post(self, message: Message[Any]) -> Offered:
        return self.mailbox.post(message.id, message.payload, message.created_at)

    def served(self, count: int | None = None) -> list[Any]:
        """The payloads of the next `count` messages, or of all that wait."""
        payloads: list[Any] = []
        while (count is None or len(payloads) < count) and (message := self.pop()):
            payloads.append(message.payload)
        return payloads


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


class TestPolicy:
    def test_the_defaults_are_bounded_blocking_and_weighted(self) -> None:
        assert MailboxPolicy() == MailboxPolicy(10_000, "block", "weighted")

    @pytest.mark.parametrize("capacity", [0, -1, True, 1.5, "10", None])
    def test_a_capacity_that_is_no_positive_int_is_refused(self, capacity: Any) -> None:
        with pytest.raises(InvalidSettings, match="mailbox capacity must be"):
            MailboxPolicy(capacity)

    @pytest.mark.parametrize("overflow", ["drop_oldest", "", None, 7, []])
    def test_an_unknown_overflow_is_refused_with_those_that_are_known(self, overflow: Any) -> None:
        with pytest.raises(InvalidSettings, match="block, reject, drop-oldest, drop-newest"):
            MailboxPolicy(overflow=overflow)

    def test_a_word_that_is_almost_right_gets_help(self) -> None:
        with pytest.raises(InvalidSettings, match="Did you mean 'weighted'"):
            MailboxPolicy(order="weighed")  # type: ignore[arg-type]


class TestBound:
    @pytest.mark.parametrize("overflow", ["block", "reject"])
    def test_a_full_mailbox_refuses(self, overflow: Overflow) -> None:
        consumer = Consumer(MailboxPolicy(2, overflow))

        answers = [consumer.offer(number) for number in range(4)]

        assert answers == [None, None, Refusal.FULL, Refusal.FULL]
        assert consumer.served() == [0, 1]

    def test_a_message_counts_until_it_is_popped(self) -> None:
        consumer = Consumer(MailboxPolicy(3, "reject"))
        for number in range(3):
            consumer.offer(number)
        before = consumer.offer("too many")

        first = consumer.served(1)

        assert (before, first) == (Refusal.FULL, [0])
        assert consumer.offer(3) is None
        assert consumer.offer("too many") is Refusal.FULL
        assert len(consumer.mailbox) == 3
        assert consumer.served() == [1, 2, 3]

    def test_all_levels_share_one_bound(self) -> None:
        consumer = Consumer(MailboxPolicy(4, "reject"))

        answers = [consumer.offer(level.name, level) for level in Priority]

        assert answers == [None] * 4
        assert consumer.offer("urgent", URGENT) is Refusal.FULL

    def test_the_bound_stays_exact_however_often_it_was_reached(self) -> None:
        consumer = Consumer(MailboxPolicy(3, "reject"))

        for _ in range(50):
            accepted = sum(consumer.offer("x") is None for _ in range(7))
            assert accepted == 3 - (len(consumer.mailbox) - accepted)
            assert len(consumer.mailbox) == 3
            consumer.served(2)

    def test_drop_newest_hands_back_the_newcomer(self) -> None:
        consumer = Consumer(MailboxPolicy(2, "drop-newest"))
        consumer.offer(0)
        consumer.offer(1)

        dropped = consumer.offer(2, URGENT)

        assert payload(dropped) == 2
        assert consumer.served() == [0, 1]

    def test_drop_oldest_hands_back_the_oldest(self) -> None:
        consumer = Consumer(MailboxPolicy(2, "drop-oldest"))
        consumer.offer(0)
        consumer.offer(1)

        dropped = [payload(consumer.offer(number)) for number in (2, 3)]

        assert dropped == [0, 1]
        assert consumer.served() == [2, 3]

    def test_drop_oldest_drops_from_the_lowest_level_that_waits(self) -> None:
        consumer = Consumer(MailboxPolicy(4, "drop-oldest"))
        for number, level in enumerate([LOW, URGENT, LOW, HIGH]):
            consumer.offer(number, level)

        dropped = [payload(consumer.offer(number, HIGH)) for number in (4, 5, 6)]

        assert dropped == [0, 2, 3]
        assert consumer.served() == [1, 4, 5, 6]

    def test_drop_oldest_drops_a_newcomer_that_ranks_below_all(self) -> None:
        consumer = Consumer(MailboxPolicy(2, "drop-oldest"))
        consumer.offer(0, HIGH)
        consumer.offer(1, NORMAL)

        dropped = consumer.offer(2, LOW)

        assert payload(dropped) == 2
        assert consumer.served() == [0, 1]

    def test_a_level_that_was_served_to_its_end_does_not_count_as_waiting(self) -> None:
        consumer = Consumer(MailboxPolicy(2, "drop-oldest"))
        consumer.offer(0, LOW)
        consumer.served(1)
        consumer.offer(1, HIGH)
        consumer.offer(2, HIGH)

        dropped = consumer.offer(3, NORMAL)

        assert payload(dropped) == 3
        assert consumer.served() == [1, 2]

    def test_a_message_that_is_dropped_out_of_a_run_is_not_served(self) -> None:
        consumer = Consumer(MailboxPolicy(2, "drop-oldest"))
        consumer.offer(0)
        consumer.offer(1)
        first = consumer.served(1)
        consumer.offer(2)

        dropped = payload(consumer.offer(3))

        assert (first, dropped) == ([0], 1)
        assert consumer.served() == [2, 3]


class TestRoom:
    """Whoever waits for room is called once, and not for nothing."""

    @pytest.fixture
    def full(self) -> Consumer:
        consumer = Consumer(MailboxPolicy(2))
        consumer.offer(0)
        consumer.offer(1)
        return consumer

    def test_who_waits_is_called_when_there_is_room(self, full: Consumer) -> None:
        called: list[str] = []
        kept = full.mailbox.when_room(lambda: called.append("room"))
        before = list(called)

        full.served(2)
        full.served()

        assert kept
        assert (before, called) == ([], ["room"])

    def test_who_asks_while_there_is_room_is_not_kept(self, consumer: Consumer) -> None:
        called: list[str] = []

        kept = consumer.mailbox.when_room(lambda: called.append("room"))
        consumer.offer(0)
        consumer.served()

        assert (kept, called) == (False, [])

    def test_as_many_are_called_as_there_is_room_for_the_longest_waiting_first(
        self, full: Consumer
    ) -> None:
        called: list[int] = []
        for number in range(3):
            full.mailbox.when_room(partial(called.append, number))

        full.limit = 1
        full.served(1)
        full.pop()
        early = list(called)
        full.served()

        assert early == [0]
        assert called[:2] == [0, 1]

    def test_who_has_given_up_is_not_called(self, full: Consumer) -> None:
        called: list[str] = []

        def waiter() -> None:
            called.append("room")

        full.mailbox.when_room(waiter)
        full.mailbox.forget(waiter)
        full.mailbox.forget(waiter)
        full.served()

        assert called == []

    @pytest.mark.parametrize("ending", ["close", "refuse"])
    def test_who_waits_is_called_when_the_mailbox_closes(self, full: Consumer, ending: str) -> None:
        called: list[str] = []
        full.mailbox.when_room(lambda: called.append("closed"))

        getattr(full.mailbox, ending)()
        full.served()

        assert called == ["closed"]
        assert not full.mailbox.when_room(lambda: called.append("again"))

    def test_a_sender_that_waits_gets_in(self, full: Consumer) -> None:
        room = threading.Event()
        answers: list[Any] = []

        def send() -> None:
            while full.offer("late") is Refusal.FULL:
                if full.mailbox.when_room(room.set):
                    answers.append(room.wait(DEADLINE))

        def consume() -> None:
            taken: list[Any] = []
            while "late" not in taken:
                taken += full.served()

        run_in_threads(send, consume)

        assert answers in ([], [True])


class TestOrder:
    def test_a_level_is_first_in_first_out(self, consumer: Consumer) -> None:
        for number in range(100):
            consumer.offer(number)

        assert consumer.served(40) == list(range(40))
        consumer.offer(100)
        assert consumer.served() == list(range(40, 101))

    def test_weighted_order_serves_eight_four_two_one(self, consumer: Consumer) -> None:
        for level in Priority:
            for number in range(20):
                consumer.offer(f"{level.name[0]}{number}", level)

        served = consumer.served()

        assert "".join(name[0] for name in served) == (
            "UUUUUUUU HHHH NN L"
            "UUUUUUUU HHHH NN L"
            "UUUU     HHHH NN L"
            "         HHHH NN L"
            "         HHHH NN L" + "NN L" * 5 + "L" * 10
        ).replace(" ", "")
        for letter in "UHNL":
            assert [name for name in served if name[0] == letter] == [
                f"{letter}{number}" for number in range(20)
            ]

    def test_strict_order_serves_the_most_urgent_to_its_end(self) -> None:
        consumer = Consumer(MailboxPolicy(order="strict"))
        for number in range(20):
            for level in reversed(Priority):
                consumer.offer(f"{level.name[0]}{number}", level)

        served = consumer.served()

        assert "".join(name[0] for name in served) == "U" * 20 + "H" * 20 + "N" * 20 + "L" * 20

    @pytest.mark.parametrize("order", ["weighted", "strict"])
    def test_something_more_urgent_interrupts_a_run(self, order: Order) -> None:
        consumer = Consumer(MailboxPolicy(order=order))
        for number in range(10):
            consumer.offer(number, LOW)
        first = consumer.served(1)

        consumer.offer("halt", URGENT)

        assert first == [0]
        assert consumer.mailbox.interrupted
        assert consumer.served(2) == ["halt", 1]

    def test_another_message_of_the_level_that_is_served_interrupts_nothing(
        self, consumer: Consumer
    ) -> None:
        consumer.offer(0)
        consumer.offer(1)
        consumer.served(1)

        consumer.offer(2)

        assert not consumer.mailbox.interrupted
        assert consumer.served() == [1, 2]

    def test_credits_refill_when_the_mailbox_runs_empty(self, consumer: Consumer) -> None:
        for number in range(8):
            consumer.offer(f"U{number}", URGENT)
        consumer.offer("L", LOW)
        consumer.served()
        consumer.offer("H", HIGH)
        consumer.offer("U", URGENT)

        assert consumer.served() == ["U", "H"]

    def test_who_was_served_alone_has_used_its_credit(self, consumer: Consumer) -> None:
        for number in range(14):
            consumer.offer(f"U{number}", URGENT)
        consumer.served(12)
        consumer.offer("H0", HIGH)

        for number in range(14, 20):
            consumer.offer(f"U{number}", URGENT)

        # Four of the second eight were used up, so four more go before HIGH has its turn.
        assert consumer.served(6) == ["U12", "U13", "U14", "U15", "H0", "U16"]

    @given(
        st.tuples(*(st.integers(0, weight) for weight in WEIGHTS)),
        st.sampled_from(list(Priority)),
        st.integers(0, 100),
    )
    def test_settling_a_lone_level_is_the_same_as_charging_it_one_by_one(
        self, before: tuple[int, ...], level: Priority, count: int
    ) -> None:
        left = list(before)
        for _ in range(count):
            if left[level] == 0:
                left = list(WEIGHTS)
            left[level] -= 1

        assert charged_alone(before, level, count) == left


class TestPutBack:
    def test_what_was_in_hand_is_the_next_of_its_level(self, consumer: Consumer) -> None:
        for number in range(3):
            consumer.offer(number)
        first = consumer.pop()
        assert first is not None

        consumer.mailbox.put_back(first)

        assert consumer.served() == [0, 1, 2]

    def test_it_goes_back_past_the_bound(self) -> None:
        consumer = Consumer(MailboxPolicy(2, "reject"))
        consumer.offer(0)
        consumer.offer(1)
        first = consumer.pop()
        assert first is not None
        consumer.offer(2)

        consumer.mailbox.put_back(first)

        assert len(consumer.mailbox) == 3
        assert consumer.offer(3) is Refusal.FULL
        consumer.served(1)
        assert consumer.offer(3) is Refusal.FULL
        assert consumer.served() == [1, 2]

    def test_it_buys_its_level_no_credit(self, consumer: Consumer) -> None:
        for number in range(2):
            consumer.offer(f"L{number}", LOW)
        first = consumer.pop()
        assert first is not None
        for number in range(2, 200):
            consumer.offer(f"L{number}", LOW)
        consumer.mailbox.put_back(first)

        for number in range(100):
            consumer.offer(f"U{number}", URGENT)

        served = consumer.served(90)
        assert sum(name[0] == "L" for name in served) <= 90 // 9 + 1


class TestCommands:
    def test_a_command_goes_before_every_message(self, consumer: Consumer) -> None:
        consumer.offer("urgent", URGENT)

        consumer.mailbox.command("stop")

        assert consumer.mailbox.run(32)[1] < 0
        assert consumer.mailbox.take_commands() == ["stop"]
        assert consumer.served() == ["urgent"]

    def test_a_command_interrupts_a_run(self, consumer: Consumer) -> None:
        consumer.offer(0)
        consumer.offer(1)
        consumer.served(1)

        consumer.mailbox.command("stop")

        assert consumer.mailbox.interrupted
        assert consumer.pop() is None
        assert consumer.mailbox.take_commands() == ["stop"]

    def test_commands_come_in_order_and_once(self, consumer: Consumer) -> None:
        for number in range(3):
            consumer.mailbox.command(number)

        assert consumer.mailbox.take_commands() == [0, 1, 2]
        assert consumer.mailbox.take_commands() == []

    def test_a_full_mailbox_takes_commands(self) -> None:
        consumer = Consumer(MailboxPolicy(1, "reject"))
        consumer.offer(0)

        assert consumer.mailbox.command("stop")
        assert consumer.mailbox.take_commands() == ["stop"]

    def test_a_mailbox_that_refuses_takes_commands_until_it_has_ended(
        self, consumer: Consumer
    ) -> None:
        consumer.mailbox.refuse()
        while_refusing = consumer.mailbox.command("stop")

        consumer.mailbox.close()

        assert (while_refusing, consumer.mailbox.command("too late")) == (True, False)

    def test_a_suspended_consumer_is_woken_by_a_command_only(self, consumer: Consumer) -> None:
        consumer.offer(0)
        consumer.served(1)
        consumer.mailbox.suspend()
        woken = consumer.wakes

        consumer.offer(1)
        consumer.mailbox.insist(tell("counter", 2))
        while_suspended = consumer.wakes
        consumer.mailbox.command("continue")

        assert while_suspended == woken
        assert consumer.wakes == woken + 1
        assert consumer.mailbox.take_commands() == ["continue"]
        assert consumer.served() == [1, 2]

    def test_a_command_that_came_before_the_suspension_wakes_at_once(
        self, consumer: Consumer
    ) -> None:
        consumer.offer(0)
        consumer.served(1)
        consumer.mailbox.command("continue")
        woken = consumer.wakes

        consumer.mailbox.suspend()

        assert consumer.wakes == woken + 1


class TestInsist:
    def test_what_is_insisted_on_goes_past_the_bound(self) -> None:
        consumer = Consumer(MailboxPolicy(1, "reject"))
        consumer.offer(0)

        taken = consumer.mailbox.insist(tell("counter", 1))

        assert taken
        assert consumer.served(1) == [0]
        assert consumer.offer(2) is Refusal.FULL
        assert consumer.served() == [1]
        assert consumer.offer(2) is None

    def test_a_closed_mailbox_cannot_be_insisted_to(self, consumer: Consumer) -> None:
        consumer.mailbox.close()

        assert not consumer.mailbox.insist(tell("counter", 1))

    def test_it_wakes_an_idle_consumer(self, consumer: Consumer) -> None:
        consumer.mailbox.insist(tell("counter", 1))

        assert consumer.wakes == 1


class TestExtract:
    def test_what_is_wanted_comes_out_in_order_and_the_rest_stays(self) -> None:
        consumer = Consumer(MailboxPolicy(10, "reject"))
        for number in range(10):
            consumer.offer(number)
        consumer.served(1)
        consumer.mailbox.suspend()

        found = consumer.mailbox.extract(lambda message: message.payload % 2 == 1)

        assert [message.payload for message in found] == [1, 3, 5, 7, 9]
        assert [consumer.offer("x") for _ in range(7)] == [None] * 6 + [Refusal.FULL]
        assert consumer.served() == [2, 4, 6, 8, *"xxxxxx"]


class TestClosing:
    def test_what_is_left_comes_back_most_urgent_first(self, consumer: Consumer) -> None:
        for number, level in enumerate([LOW, NORMAL, URGENT, HIGH, LOW, URGENT]):
            consumer.offer(number, level)
        first = consumer.served(1)

        left = consumer.mailbox.close()

        assert first == [2]
        assert [message.payload for message in left] == [5, 3, 1, 0, 4]
        assert consumer.served() == []
        assert len(consumer.mailbox) == 0

    @pytest.mark.parametrize("overflow", ["block", "reject", "drop-oldest", "drop-newest"])
    @pytest.mark.parametrize("ending", ["close", "refuse"])
    @pytest.mark.parametrize("waiting", [0, 1, 2])
    def test_a_closed_mailbox_refuses_whatever_its_policy(
        self, overflow: Overflow, ending: str, waiting: int
    ) -> None:
        consumer = Consumer(MailboxPolicy(2, overflow))
        for number in range(waiting):
            consumer.offer(number)

        getattr(consumer.mailbox, ending)()

        assert consumer.offer("late", URGENT) is Refusal.CLOSED
        assert consumer.mailbox.closed

    def test_closing_twice_gives_nothing_twice(self, consumer: Consumer) -> None:
        consumer.offer(0)
        consumer.mailbox.close()

        assert consumer.mailbox.close() == []

    def test_what_waited_when_newcomers_were_refused_can_still_be_served(
        self, consumer: Consumer
    ) -> None:
        consumer.offer(0)
        consumer.offer(1)

        consumer.mailbox.refuse()

        assert consumer.served() == [0, 1]

    def test_a_copy_of_what_waits_takes_nothing_away(self, consumer: Consumer) -> None:
        for number, level in enumerate([LOW, NORMAL, URGENT]):
            consumer.offer(number, level)

        assert [message.payload for message in consumer.mailbox.waiting()] == [2, 1, 0]
        assert len(consumer.mailbox) == 3
        assert consumer.served() == [2, 1, 0]


class TestWaking:
    def test_a_burst_wakes_once(self, consumer: Consumer) -> None:
        for number in range(1_000):
            consumer.offer(number)

        assert consumer.wakes == 1

    def test_a_consumer_that_found_nothing_is_woken_again(self, consumer: Consumer) -> None:
        consumer.offer(0)
        consumer.served()
        idle = consumer.mailbox.idle

        consumer.offer(1)

        assert idle
        assert consumer.wakes == 2

    def test_a_consumer_that_has_not_looked_yet_is_not_woken(self, consumer: Consumer) -> None:
        consumer.offer(0)
        consumer.served(1)
        idle = consumer.mailbox.idle

        consumer.offer(1)

        assert not idle
        assert consumer.wakes == 1

    @pytest.mark.usefixtures("frequent_switches")
    def test_no_wake_up_is_lost(self) -> None:
        consumer = Consumer()
        taken: list[int] = []

        def send() -> None:
            for number in range(2_000):
                consumer.offer(number)

        def consume() -> None:
            while len(taken) < 8_000:
                assert consumer.woken.acquire(timeout=DEADLINE), "a wake-up was lost"
                taken.extend(consumer.served())

        run_in_threads(consume, *[send] * 4)

        assert Counter(taken) == dict.fromkeys(range(2_000), 4)


class Model:
    """The credit policy, one message at a time, in the plainest words."""

    def __init__(self, policy: MailboxPolicy) -> None:
        self.policy = policy
        self.levels: list[deque[int]] = [deque() for _ in Priority]
        self.credits = list(WEIGHTS)

    def __len__(self) -> int:
        return sum(map(len, self.levels))

    def offer(self, payload: int, level: Priority) -> int | Refusal | None:
        dropped = None
        if len(self) >= self.policy.capacity:
            if self.policy.overflow in ("block", "reject"):
                return Refusal.FULL
            lowest = max(one for one in Priority if self.levels[one])
            if self.policy.overflow == "drop-newest" or level > lowest:
                return payload
            dropped = self.levels[lowest].popleft()
        self.levels[level].append(payload)
        return dropped

    def pop(self) -> tuple[int, Priority] | None:
        waiting = [level for level in Priority if self.levels[level]]
        if not waiting:
            self.credits = list(WEIGHTS)
            return None
        level = waiting[0]
        if self.policy.order == "weighted":
            if not any(self.credits[one] for one in waiting):
                self.credits = list(WEIGHTS)
            level = next(one for one in waiting if self.credits[one])
            self.credits[level] -= 1
        return self.levels[level].popleft(), level


POLICIES: Final = st.builds(
    MailboxPolicy,
    st.integers(1, 40),
    st.sampled_from(["block", "reject", "drop-oldest", "drop-newest"]),
    st.sampled_from(["weighted", "strict"]),
)


class MailboxAgainstModel(RuleBasedStateMachine):
    """Whatever is offered, taken and put back in whatever order: the mailbox is the model."""

    @initialize(policy=POLICIES, limit=st.integers(1, 20))
    def begin(self, policy: MailboxPolicy, limit: int) -> None:
        self.consumer = Consumer(policy, limit=limit)
        self.model = Model(policy)
        self.numbers = iter(range(1_000_000))
        self.in_hand: Message[Any] | None = None
        self.returned = 0

    @rule(level=st.sampled_from(list(Priority)), count=st.integers(1, 12))
    def offer(self, level: Priority, count: int) -> None:
        for _ in range(count):
            number = next(self.numbers)

            answer = self.consumer.offer(number, level)

            assert payload(answer) == self.model.offer(number, level)

    @rule(count=st.integers(1, 12))
    def take(self, count: int) -> None:
        for _ in range(count):
            message = self.consumer.pop()
            expected = self.model.pop()
            assert (message and (message.payload, message.priority)) == expected
            self.in_hand = message

    @precondition(lambda self: self.in_hand is not None)
    @rule()
    def put_back(self) -> None:
        assert self.in_hand is not None
        self.consumer.mailbox.put_back(self.in_hand)
        self.model.levels[self.in_hand.priority].appendleft(self.in_hand.payload)
        self.in_hand = None
        self.returned += 1

    @rule()
    def command(self) -> None:
        self.consumer.mailbox.command("look")
        assert self.consumer.pop() is None
        assert self.consumer.mailbox.take_commands() == ["look"]

    @rule(remainder=st.integers(0, 2))
    def extract(self, remainder: int) -> None:
        def wanted(number: int) -> bool:
            return number % 3 == remainder

        found = self.consumer.mailbox.extract(lambda message: wanted(message.payload))

        expected = [number for level in self.model.levels for number in level if wanted(number)]
        assert [message.payload for message in found] == expected
        for level in self.model.levels:
            kept = [number for number in level if not wanted(number)]
            level.clear()
            level.extend(kept)

    @invariant()
    def it_holds_what_the_model_holds(self) -> None:
        if not hasattr(self, "consumer"):
            return
        waiting = [message.payload for message in self.consumer.mailbox.waiting()]
        assert waiting == [number for level in self.model.levels for number in level]
        assert len(self.consumer.mailbox) == len(self.model)
        assert len(self.model) <= self.model.policy.capacity + self.returned

    def teardown(self) -> None:
        if hasattr(self, "consumer"):
            left = [message.payload for message in self.consumer.mailbox.close()]
            assert left == [number for level in self.model.levels for number in level]


def test_the_mailbox_does_what_the_model_of_its_policy_does() -> None:
    run_state_machine_as_test(
        MailboxAgainstModel,
        settings=settings(max_examples=100, stateful_step_count=40, deadline=None),
    )


@given(
    load=st.lists(
        st.tuples(st.sampled_from([URGENT, HIGH, NORMAL]), st.integers(1, 6)), max_size=60
    )
)
@settings(max_examples=50, deadline=None)
def test_low_gets_a_fifteenth_of_the_service_under_any_load(
    load: list[tuple[Priority, int]],
) -> None:
    consumer = Consumer()
    for number in range(100):
        consumer.offer(f"low {number}", LOW)
    low_served = 0

    for step, (level, count) in enumerate(load, start=1):
        for _ in range(count):
            consumer.offer("other", level)
        [served] = consumer.served(1)
        low_served += served.startswith("low")

        assert low_served >= step // 15


@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize("overflow", ["reject", "drop-oldest", "drop-newest"])
@pytest.mark.parametrize("seed", range(3))
def test_every_message_ends_exactly_once_whoever_sends_and_whenever_it_closes(
    overflow: Overflow, seed: int
) -> None:
    consumer = Consumer(MailboxPolicy(64, overflow))
    close_after = random.Random(seed).randrange(500, 6_000)
    finished: list[int] = []
    accepted: list[tuple[int, int]] = []
    refused: list[tuple[int, int]] = []
    dropped: list[tuple[int, int]] = []
    consumed: list[Message[Any]] = []
    left: list[Message[Any]] = []

    def send(sender: int) -> None:
        levels = random.Random(seed * 8 + sender).choices(list(Priority), k=1_000)
        for number, level in enumerate(levels):
            answer = consumer.offer((sender, number), level)
            (refused if isinstance(answer, Refusal) else accepted).append((sender, number))
            if isinstance(answer, Message):
                dropped.append(answer.payload)
        finished.append(sender)
        consumer.woken.release()

    def consume() -> None:
        while len(consumed) < close_after:
            all_was_sent = len(finished) == 8
            message = consumer.pop()
            if message is not None:
                consumed.append(message)
                assert len(consumer.mailbox) <= 64
            elif all_was_sent:
                break
            else:
                assert consumer.woken.acquire(timeout=DEADLINE), "a wake-up was lost"
        left.extend(consumer.mailbox.close())

    run_in_threads(consume, *(partial(send, sender) for sender in range(8)))

    ended = Counter(message.payload for message in [*consumed, *left])
    assert ended + Counter(dropped) == Counter(accepted)
    assert len(accepted) + len(refused) == 8_000
    assert len(consumer.mailbox) == 0
    in_order: dict[tuple[int, Priority], list[int]] = {}
    for message in [*consumed, *left]:
        sender, number = message.payload
        in_order.setdefault((sender, message.priority), []).append(number)
    assert all(numbers == sorted(numbers) for numbers in in_order.values())


@pytest.mark.parametrize("begun", [1, 2])
def test_a_message_that_is_just_being_taken_stays_with_who_takes_it(begun: int) -> None:
    consumer = Consumer()
    for number in range(3):
        consumer.offer(number)
    run, _ = consumer.mailbox.run(32)
    slots = [run.popleft() for _ in range(begun)]
    seen = [message.payload for message in consumer.mailbox.waiting()]

    left = [message.payload for message in consumer.mailbox.close()]
    slots += [run.popleft() for _ in range(WIDTH - begun)]

    assert slots[1] == 0
    assert seen == left == [1, 2]


@pytest.mark.parametrize("form", ["post", "offer"])
@pytest.mark.parametrize(
    ("when", "answer", "left"),
    [
        ("before", Refusal.CLOSED, ["first"]),
        ("after", None, ["first", "newcomer"]),
        ("taken", None, []),
    ],
)
def test_a_message_that_comes_as_the_mailbox_closes_is_refused_left_or_taken(
    when: str, answer: Offered, left: list[str], form: str
) -> None:
    consumer = Consumer()
    message = tell("counter", "newcomer")
    words = (message,) if form == "offer" else (message.id, message.payload, message.created_at)
    consumer.offer("first")
    closing = ClosesAsItGrows(consumer, when)
    consumer.mailbox._queues[NORMAL] = consumer.mailbox._normal = closing

    answered = getattr(consumer.mailbox, form)(*words)

    assert (answered, [message.payload for message in closing.left]) == (answer, left)
    assert closing.served == (["first", "newcomer"] if when == "taken" else [])


class ClosesAsItGrows(deque[Any]):
    """The deque of a level whose mailbox closes just before, or after, something comes in."""

    def __init__(self, consumer: Consumer, when: str) -> None:
        super().__init__(consumer.mailbox._queues[NORMAL])
        self.left: list[Message[Any]] = []
        self.served: list[str] = []
        self._consumer = consumer
        self._when = when

    def extend(self, slots: Any) -> None:
        if self._consumer.mailbox.ended:
            super().extend(slots)
            return
        if self._when == "before":
            self.left = self._consumer.mailbox.close()
        super().extend(slots)
        if self._when == "taken":
            self.served = self._consumer.served()
        if self._when != "before":
            self.left = self._consumer.mailbox.close()


def test_what_is_dropped_while_the_mailbox_closes_is_handed_to_somebody() -> None:
    closing = ClosesOnceItIsFull("counter", MailboxPolicy(1, "drop-oldest"), None, lambda _: None)
    closing.offer(tell("counter", "oldest"))

    dropped = closing.offer(tell("counter", "newcomer"))

    assert payload(dropped) == "oldest"
    assert [message.payload for message in closing.left] == ["newcomer"]


class ClosesOnceItIsFull(Mailbox):
    """The race of an overflowing sender with whoever closes the mailbox, lost on purpose."""

    left: list[Message[Any]]

    def _admit_late(self, slots: Slots, priority: Priority) -> tuple[bool, Offered]:
        admission = super()._admit_late(slots, priority)
        self.left = self.close()
        return admission


@pytest.mark.parametrize("look", range(1, 8))
@pytest.mark.parametrize("level", [LOW, NORMAL, URGENT])
def test_a_message_that_is_swapped_while_the_consumer_looks_does_not_strand_it(
    level: Priority, look: int
) -> None:
    consumer = Consumer(MailboxPolicy(1, "drop-oldest"))
    consumer.offer("oldest", LOW)
    queue = SwappedAtALook(consumer.mailbox._queues[LOW])
    consumer.mailbox._queues[LOW] = queue
    queue.swap = lambda: consumer.offer("newcomer", level)
    queue.looks_left = look

    served: list[str] = []
    while consumer.woken.acquire(blocking=False):
        served += consumer.served()

    assert served in (["newcomer"], ["oldest"], ["oldest", "newcomer"])
    assert consumer.mailbox.idle
    assert len(consumer.mailbox) == 0


def test_what_comes_just_as_a_lower_level_is_chosen_interrupts_its_run(consumer: Consumer) -> None:
    consumer.offer("served", HIGH)
    consumer.offer(0)
    queue = SwappedAtALook(consumer.mailbox._queues[NORMAL])
    consumer.mailbox._normal = consumer.mailbox._queues[NORMAL] = queue
    for number in range(1, 4):
        consumer.mailbox._queues[NORMAL].extend((tell("counter", number), None, None))
    assert consumer.served(1) == ["served"]
    queue.swap = lambda: consumer.offer("late", HIGH)
    queue.looks_left = 1

    assert consumer.served() == ["late", 0, 1, 2, 3]


class SwappedAtALook(deque[Any]):
    """The deque of a level whose message a sender drops for its own, at a chosen moment."""

    looks_left = 0
    swap: Callable[[], object]

    def __len__(self) -> int:
        size = super().__len__()
        self.looks_left -= 1
        if self.looks_left == 0:
            self.swap()
        return size


def payload(answer: Offered) -> Any:
    """What was dropped, or the refusal."""
    return answer.payload if isinstance(answer, Message) else answer
