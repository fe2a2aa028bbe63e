"""Rules of who may send what to whom; `Rules.load("policy.toml")` reads them from a file."""

from actorbus import Agent, Deliver, Node, Rejected, agent, handles
from actorbus.bus.middlewares import Rule, Rules, authorise

RULES = Rules(
    [
        Rule("allow", name="anybody asks scouts", to="scout-*"),
        Rule("allow", name="scouts report", sender="scout-*", type="str", to="librarian"),
    ],
    default="deny",
)


@agent
def librarian(text: str) -> str:
    return f"kept {text!r}"


class Scout(Agent):
    @handles
    async def look(self, where: str) -> str:
        return str(await self.ask("librarian", f"a fox in the {where}"))


with Node(middleware=Deliver(authorise(RULES))) as node:
    node.spawn(librarian, name="librarian")
    scout = node.spawn(Scout, name="scout-1")
    print(scout.ask("garden").get())
    try:
        node.ask("librarian", "a unicorn").get()
    except Rejected as error:
        print(error)

# Prints:
#   kept 'a fox in the garden'
#   'librarian' refused the message: no rule allows code that is no agent to send str to 'librarian'
