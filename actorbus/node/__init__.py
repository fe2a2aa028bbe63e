"""The node: one process's runtime, and the only package that names concrete back ends."""

from actorbus.node.node import Node

__all__ = ["Node"]
