"""Subscribe to a part of a topic: conditions on the fields of what is published."""

from pydantic import BaseModel

from actorbus import Agent, Node, handles, where


class Order(BaseModel):
    id: int
    country: str
    total: float


class Clerk(Agent):
    def __init__(self) -> None:
        self.orders: list[int] = []

    @handles
    def take(self, order: Order) -> None:
        self.orders.append(order.id)

    @handles
    def report(self, question: str) -> list[int]:
        return self.orders


with Node() as node:
    large = node.spawn(Clerk, name="large orders from Norway")
    nordic = node.spawn(Clerk, name="nordic orders")
    large.subscribe("orders.>", where={"country": "NO", "total": where.gt(100)})
    nordic.subscribe("orders.>", where={"country": where.one_of("NO", "SE", "DK")})

    for number, (country, total) in enumerate([("NO", 250), ("NO", 20), ("SE", 900), ("FR", 5)]):
        node.topic("orders.new").publish(Order(id=number, country=country, total=total))

    for clerk in (large, nordic):
        print(f"{clerk.name}: {clerk.ask('which?').get()}")

# Prints:
#   large orders from Norway: [0]
#   nordic orders: [0, 1, 2]
