"""To everyone but the sender; an urgent one overtakes the work that waits."""

from dataclasses import dataclass
from threading import Event

from actorbus import Agent, Node, Priority, handles


@dataclass
class Halt:
    why: str


class Digger(Agent):
    dug = 0
    halted = False

    def on_start(self) -> None:
        whistle.wait()

    @handles
    def dig(self, metres: int) -> None:
        if not self.halted:
            self.dug += metres

    @handles
    def halt(self, halt: Halt) -> None:
        self.halted = True

    def on_stop(self) -> None:
        print(f"{self.name} dug {self.dug} m")


whistle = Event()

with Node() as node:
    node.spawn(Digger, name="digger").tell(10)
    told = node.broadcast(Halt("there is water"), priority=Priority.URGENT)
    print(told, "was told")
    whistle.set()

# Prints:
#   1 was told
#   digger dug 0 m
