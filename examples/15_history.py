"""Who said what to whom, and why: the last messages in memory, all of them in a database."""

from pathlib import Path
from tempfile import TemporaryDirectory

from actorbus import Agent, Node, handles


class Editor(Agent):
    @handles
    def edit(self, draft: str) -> str:
        verdict = self.ask("checker", len(draft)).get()
        return f"{draft} ({verdict})"


class Checker(Agent):
    @handles
    def check(self, length: int) -> str:
        return "long enough" if length > 10 else "too short"


with (
    TemporaryDirectory() as folder,
    Node(audit=f"sqlite:///{Path(folder, 'history.db')}") as node,
):
    node.spawn(Checker, name="checker")
    node.spawn(Editor, name="editor").ask("once upon a time").get()

    [last] = node.history.list(limit=1)
    print(f"{len(node.history)} in memory, the last one {last.kind} of {last.type}")
    for message in node.audit.conversation(last.id):
        print(f"{message.sender} -> {message.recipient}: {message.kind} {message.payload!r}")

# Prints:
#   4 in memory, the last one reply of str
#   None -> editor: request 'once upon a time'
#   editor -> checker: request 16
#   checker -> editor: reply 'long enough'
#   editor -> None: reply 'once upon a time (long enough)'
