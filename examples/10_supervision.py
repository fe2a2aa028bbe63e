"""Children are supervised: one that fails starts anew, and who watches is told when one stops."""

from actorbus import Agent, Node, Supervision, Terminated, handles


class Worker(Agent):
    supervision = Supervision(on_failure="restart", max_restarts=3, within=10, backoff=0.01)

    def on_restart(self, reason: BaseException | None, message: object) -> None:
        print(f"{self.name} starts anew after: {reason}")

    @handles
    def divide(self, divisor: int) -> None:
        print(f"12 / {divisor} = {12 // divisor}")


class Boss(Agent):
    def on_start(self) -> None:
        self.worker = self.spawn(Worker, name="worker")
        self.watch(self.worker)

    @handles
    def delegate(self, divisor: int) -> None:
        self.worker.tell(divisor)

    @handles
    def dismiss(self, word: str) -> None:
        self.worker.stop(drain=True)

    @handles
    def told(self, end: Terminated) -> None:
        print(f"{self.name}: {end.name} has {end.reason}")


with Node() as node:
    boss = node.spawn(Boss, name="boss")
    for order in (3, 0, 4, "you may go"):
        boss.tell(order)

# Prints:
#   12 / 3 = 4
#   worker starts anew after: integer division or modulo by zero
#   12 / 4 = 3
#   boss: worker has stopped
