"""Nothing is lost silently: what cannot be handled is kept with the reason, to be sent again."""

from actorbus import Agent, Node, Reject, Supervision, handles


class Printer(Agent):
    supervision = Supervision(on_failure="resume")
    paper = 0

    @handles
    def load(self, sheets: int) -> None:
        Printer.paper += sheets

    @handles
    def print_out(self, page: str) -> None:
        if not self.paper:
            raise RuntimeError("out of paper")
        if page == "a secret":
            raise Reject("that is not for paper")
        Printer.paper -= 1
        print("printed", page)


with Node() as node:
    printer = node.spawn(Printer, name="printer")
    for payload in ("a letter", 5, "a secret", 3.14):
        printer.tell(payload)
    node.drain()

    for letter in reversed(node.dead_letters.list()):
        print(f"{letter.message.payload!r} to {letter.recipient}: {letter.reason}")

    [failed] = node.dead_letters.list(reason="handler-error")
    node.dead_letters.requeue(failed.id)
    for letter in node.dead_letters.list():
        node.dead_letters.discard(letter.id)
    node.drain()
    print(len(node.dead_letters), "left")

# Prints:
#   'a letter' to printer: handler-error
#   'a secret' to printer: rejected
#   3.14 to printer: no-handler
#   printed a letter
#   0 left
