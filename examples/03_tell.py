"""Fire and forget: urgent first, too late never, and not before its time."""

import time
from threading import Event

from actorbus import Agent, Node, Priority, handles


class Desk(Agent):
    def __init__(self, opened: Event, closed: Event) -> None:
        self.opened = opened
        self.closed = closed

    def on_start(self) -> None:
        self.opened.wait()

    def on_stop(self) -> None:
        print("good night")

    @handles
    def work(self, job: str) -> None:
        print(job)
        if job == "go home":
            self.closed.set()


opened, closed = Event(), Event()

with Node() as node:
    desk = node.spawn(Desk, opened, closed)
    desk.tell("water the plants", priority=Priority.LOW)
    desk.tell("answer the mail")
    desk.tell("put out the fire", priority=Priority.URGENT)
    desk.tell("catch the early bus", ttl=0.01)
    desk.tell("go home", priority=Priority.LOW, delay=0.1)
    time.sleep(0.02)
    opened.set()
    closed.wait(timeout=5)

# Prints:
#   put out the fire
#   answer the mail
#   water the plants
#   go home
#   good night
