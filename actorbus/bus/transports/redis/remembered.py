"""Ids that are remembered until they come, or until too many others are."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

T = TypeVar("T")


# A plain dict looks for its oldest among all that were forgotten since it last grew.
class Remembered(OrderedDict[T, None]):
    """The newest `most` of what was added."""

    __slots__ = ("_most",)

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def add(self, one: T) -> None:
        self[one] = None
        if len(self) > self._most:
            self.popitem(last=False)

    def forget(self, one: T) -> bool:
        """Whether it was remembered; it is not any more."""
        return self.pop(one, self) is None
