"""An effect on every message is a wrapper: before it is accepted, or before it is handled."""

from typing import Any

from actorbus import Agent, Dead, Deliver, Message, Node, Reason, Rejected, Send, handles
from actorbus.bus.middleware import Handle, Outcome


def without_shouting(handle: Handle) -> Handle:
    def listen(message: Message[Any]) -> Outcome:
        if str(message.payload).isupper():
            return Dead(Reason.REFUSED, "please do not shout")
        return handle(message)

    return listen


def traced(handle: Handle) -> Handle:
    def trace(message: Message[Any]) -> Outcome:
        outcome = handle(message)
        print(f"{message.recipient} <- {message.payload!r}: {outcome}")
        return outcome

    return trace


class Echo(Agent):
    @handles
    def echo(self, text: str) -> str:
        return text


with Node(middleware=[Send(without_shouting), Deliver(traced)]) as node:
    echo = node.spawn(Echo, name="echo")
    print(echo.ask("hello").get())
    try:
        echo.ask("HELLO").get()
    except Rejected as error:
        print(error)

# Prints:
#   echo <- 'hello': Handled(value='hello')
#   hello
#   'echo' refused the message: please do not shout
