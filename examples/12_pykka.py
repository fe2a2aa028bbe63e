"""Every agent is a pykka.Actor: Pykka's own tell, ask and proxy work on it, beside the bus."""

from typing import Any

import pykka

from actorbus import Agent, Message, Node, handles


class Calculator(Agent):
    def __init__(self) -> None:
        self.last = 0

    def add(self, first: int, second: int) -> int:
        self.last = first + second
        return self.last

    @handles
    def double(self, number: int) -> int:
        return 2 * number

    def on_message(self, message: Message[Any]) -> str:
        return f"what is {message.payload!r}?"


with Node() as node:
    calculator = node.spawn(Calculator, name="calculator")
    actor_ref = calculator.actor_ref

    print(issubclass(Calculator, pykka.Actor), isinstance(actor_ref, pykka.ActorRef))
    print(actor_ref.ask(21), calculator.ask(21).get())
    print(actor_ref.ask("love"))

    proxy = calculator.proxy()
    print(proxy.add(1, 2).get(), proxy.last.get())

# Prints:
#   True True
#   42 42
#   what is 'love'?
#   3 3
