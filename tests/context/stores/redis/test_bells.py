"""A server that is not heard any more is found in a time that does not depend on its sweeps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from actorbus.context.stores.redis import bells
from actorbus.context.stores.redis.bells import Bells
from actorbus.errors import TransportUnavailable


class DeafEar:
    """Hears nothing; waiting for it is what makes time pass."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked: list[float] = []

    def get_message(self, timeout: float) -> None:
        self.now += timeout

    def ping(self) -> None:
        self.asked.append(self.now)


@pytest.mark.parametrize("sweep", [0.9, 0.99, 1.0, 1.1])
def test_a_subscription_that_went_deaf_is_found_after_four_seconds(
    sweep: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ear = DeafEar()
    monkeypatch.setattr(bells, "time", SimpleNamespace(monotonic=lambda: ear.now))
    monkeypatch.setattr(bells, "random", SimpleNamespace(uniform=lambda *_: sweep))
    server: Any = SimpleNamespace(shown="redis://host")
    listening = Bells(
        server,
        channel=str,
        wake="wake",
        revisions=lambda _: [],
        sweep=lambda: None,
        failed=lambda _: None,
    )

    with pytest.raises(TransportUnavailable, match="went silent"):
        listening._listen(ear)

    assert ear.asked == [pytest.approx(102.0)]
    assert ear.now == pytest.approx(104.0)
