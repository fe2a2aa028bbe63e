"""Publish to a topic; whoever subscribes gets it. * is one token, > is all that follow."""

from actorbus import Agent, Message, Node, handles


class Listener(Agent):
    def __init__(self) -> None:
        self.heard: list[str] = []

    @handles
    def hear(self, tick: Message[float]) -> None:
        self.heard.append(f"{tick.topic}={tick.payload}")

    @handles
    def report(self, question: str) -> list[str]:
        return self.heard


class Broker(Listener):
    subscriptions = ("prices.*",)


with Node() as node:
    broker = node.spawn(Broker)
    archive = node.spawn(Listener, name="archive")

    with archive.subscribe("prices.>"):
        print(node.topic("prices.eur").publish(1.08), "subscribers")
        print(node.topic("prices.eur.oslo").publish(11.7), "subscriber")
    node.topic("prices.usd").publish(1.0)

    for listener in (broker, archive):
        print(listener.name, listener.ask("what did you hear?").get())

# Prints:
#   2 subscribers
#   1 subscriber
#   broker-1 ['prices.eur=1.08', 'prices.usd=1.0']
#   archive ['prices.eur=1.08', 'prices.eur.oslo=11.7']
