"""An agent may tell itself something again and again; it handles that like any message."""

from dataclasses import dataclass
from threading import Event

from actorbus import Agent, Node, handles


@dataclass
class Tick:
    every: float


class Metronome(Agent):
    def __init__(self, done: Event) -> None:
        self.done = done
        self.beats = 0

    def on_start(self) -> None:
        self.ticking = self.schedule(every=0.05, payload=Tick(0.05))

    @handles
    def beat(self, tick: Tick) -> None:
        self.beats += 1
        print("tick" if self.beats % 2 else "tock")
        if self.beats == 4:
            self.ticking.cancel()
            self.done.set()


done = Event()

with Node() as node:
    node.spawn(Metronome, done)
    done.wait(timeout=5)

# Prints:
#   tick
#   tock
#   tick
#   tock
