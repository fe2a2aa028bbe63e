"""What messages between processes cost over a real Redis, beside redis-py and task queues.

A measurement starts a server of its own (or takes the empty one that it is given), a *consumer*
in a process of its own, warms both up, and then sends from its own process. Consumers write down
when they had handled how many messages, by the clock that all processes of a machine share.
"""
