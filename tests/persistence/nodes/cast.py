"""The agents that the tests of a history over several nodes run."""

from __future__ import annotations

from typing import Any

from actorbus import Agent, Reject, handles


class Front(Agent):
    """Asks one node, then tells another."""

    failover = True

    @handles
    def order(self, order: dict[str, Any]) -> str:
        price = self.ask("pricing", order["item"]).get()
        self.tell("ledger", price)
        return f"{order['item']} for {price}"


class Pricing(Agent):
    @handles
    def price(self, item: str) -> int:
        if item == "gold":
            raise Reject("not for sale")
        self.tell("ledger", -1)
        return len(item)


class Ledger(Agent):
    @handles
    def book(self, amount: int) -> None:
        pass
