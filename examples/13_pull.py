"""A mailbox for code that is not an agent: it takes its messages itself, when it likes."""

from actorbus import Agent, Node, Priority, handles


class Reporter(Agent):
    @handles
    def report(self, story: str) -> None:
        priority = Priority.URGENT if story.endswith("!") else Priority.NORMAL
        self.tell("newsroom", story, priority=priority)

    @handles
    def may_publish(self, page: int) -> bool:
        allowed: bool = self.ask("newsroom", page).get()
        return allowed


with Node() as node, node.mailbox("newsroom") as newsroom:
    reporter = node.spawn(Reporter, name="reporter")
    for story in ("cat sits on mat", "man bites dog!", "rain expected"):
        reporter.tell(story)
    node.drain()
    for message in newsroom.take(10):
        print(f"{message.sender}: {message.payload}")

    answer = reporter.ask(1)
    [question] = newsroom.take(timeout=5)
    newsroom.reply(question, question.payload < 10)
    print(answer.get())

# Prints:
#   reporter: man bites dog!
#   reporter: cat sits on mat
#   reporter: rain expected
#   True
