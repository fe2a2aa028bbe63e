"""Every ask ends: with a value, or with an error that says why. 30 s is the default deadline."""

from threading import Event

from actorbus import Agent, AgentFailed, AskTimeout, Node, NoHandler, Reject, Rejected, handles


class Divider(Agent):
    def __init__(self, never: Event) -> None:
        self.never = never

    @handles
    def divide(self, pair: tuple[float, float]) -> float:
        if pair[1] < 0:
            raise Reject("only by what is positive")
        return pair[0] / pair[1]

    @handles
    def think(self, question: str) -> None:
        self.never.wait()


never = Event()

with Node() as node:
    divider = node.spawn(Divider, never, name="divider")
    print(divider.ask((7, 2)).get())

    for payload in [(1, 0), (1, -1), {"no": "handler"}]:
        try:
            divider.ask(payload).get()
        except (AgentFailed, Rejected, NoHandler) as error:
            print(f"{type(error).__name__}: {error}")
    try:
        divider.ask("what is the meaning of it all?", timeout=0.1).get()
    except AskTimeout as error:
        print(f"AskTimeout: {error}")
    never.set()

# Prints:
#   3.5
#   AgentFailed: agent 'divider' failed with ZeroDivisionError: division by zero
#   Rejected: 'divider' refused the message: only by what is positive
#   NoHandler: agent 'divider' has no handler for dict; it handles str, tuple
#   AskTimeout: no reply from 'divider' within 0.1 s
