"""Handlers may be coroutines: they share one event loop, and wait without a thread."""

import asyncio

from actorbus import Agent, Node, handles


class Fetcher(Agent):
    capabilities = ("fetch",)

    @handles
    async def fetch(self, url: str) -> str:
        await asyncio.sleep(0.1)
        return f"<{url}>"


class Crawler(Agent):
    concurrency = 2  # that many pages at a time, in no order

    @handles
    async def crawl(self, urls: list[str]) -> str:
        pages = await asyncio.gather(*(self.any("fetch").ask(url) for url in urls))
        return "".join(pages)


async def main() -> None:
    async with Node() as node:
        for _ in range(3):
            node.spawn(Fetcher)
        crawler = node.spawn(Crawler)

        print(await crawler.ask(["a.org", "b.org", "c.org"]))
        print(await asyncio.gather(crawler.ask(["d.org"]), crawler.ask(["e.org"])))


asyncio.run(main())

# Prints:
#   <a.org><b.org><c.org>
#   ['<d.org>', '<e.org>']
