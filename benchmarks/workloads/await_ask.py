"""await ask: round trips between two agents of one event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from benchmarks.receivers import WAIT, Payload
from benchmarks.round_trips import METRICS, RATE, time_awaits
from benchmarks.workload import Case, Goal, Sample, Workload, everywhere

if TYPE_CHECKING:
    from collections.abc import Awaitable

_N = 50_000

_Request = tuple[Payload, asyncio.Future[Payload]]


def await_asyncio_queue(n: int) -> Sample:
    """A queue to a task, and a future back."""

    async def answer(requests: asyncio.Queue[_Request | None]) -> None:
        while (request := await requests.get()) is not None:
            payload, reply = request
            reply.set_result(payload)

    async def measure() -> Sample:
        loop = asyncio.get_running_loop()
        requests: asyncio.Queue[_Request | None] = asyncio.Queue()
        answering = asyncio.create_task(answer(requests))

        def ask(payload: Payload) -> Awaitable[Payload]:
            reply = loop.create_future()
            requests.put_nowait((payload, reply))
            return reply

        sample = await time_awaits(ask, n)
        requests.put_nowait(None)
        await answering
        return sample

    return asyncio.run(measure())


def await_actorbus(n: int) -> Sample:
    from actorbus import Agent, Node, Ref, handles

    class Echo(Agent):
        @handles
        async def answer(self, request: Payload) -> Payload:
            return request

    class Asker(Agent):
        def __init__(self, echo: Ref) -> None:
            super().__init__()
            self.echo = echo

        @handles
        async def measure(self, times: int) -> dict[str, float]:
            return dict(await time_awaits(self.echo.ask, times))

    with Node() as node:
        asker = node.spawn(Asker, node.spawn(Echo))
        sample: Sample = asker.ask(n, timeout=WAIT).get()
        return sample


WORKLOAD = Workload(
    name="await_ask",
    clock="one async agent awaits the answer of another on the same loop, n times in a row",
    metrics=METRICS,
    cases=(
        Case("asyncio.Queue", await_asyncio_queue, _N),
        Case("actorbus", await_actorbus, _N),
    ),
    baseline="asyncio.Queue",
    goals=(
        Goal("actorbus", RATE, must=everywhere(0.5), aim=everywhere(0.75), over="asyncio.Queue"),
    ),
)
