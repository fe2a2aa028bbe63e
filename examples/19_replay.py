"""A stored conversation runs again, offline: the same, otherwise, or with another answer."""

from pathlib import Path
from tempfile import TemporaryDirectory

from actorbus import Agent, Node, agent, handles
from actorbus.replay import Replay


class Guide(Agent):
    wish = "dry"

    @handles
    def advise(self, town: str) -> str:
        weather = self.ask("weather", town).get()
        return "go" if weather == self.wish else "stay"


class Duck(Guide):
    wish = "wet"


@agent
def weather(town: str) -> str:  # a service that costs money: a replay asks history instead
    return "wet" if town == "Bergen" else "dry"


with TemporaryDirectory() as folder, Node(audit=f"sqlite:///{Path(folder, 'h.db')}") as node:
    node.spawn(weather, name="weather")
    node.spawn(Guide, name="guide").ask("Bergen").get()
    [asked] = node.audit.messages(recipient="weather")

    replay = Replay(node.audit, asked.id, agents={"guide": Guide})
    print("same:", replay.run().same)
    duck = Replay(node.audit, asked.id, agents={"guide": Duck}).run()
    print("a duck:", str(duck.divergence).splitlines()[0])
    print("if it were dry:", replay.fork(asked.id, answer="dry").steps[-1].said.payload)

# Prints:
#   same: True
#   a duck: diverged at message 4 of 4: another message was sent
#   if it were dry: go
