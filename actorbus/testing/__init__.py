"""The test kit that ships with actorbus: a node to test agents on, and conformance suites.

``TestNode`` runs agents on the calling thread with a turned clock. ``TransportContract``,
``DirectoryContract`` and ``StoreContract`` say what every implementation promises; inherit one
and say how to open yours. They need pytest.
"""

from typing import TYPE_CHECKING, Any

from actorbus.testing.clock import ManualClock
from actorbus.testing.node import SimulatedCrash, TestNode

if TYPE_CHECKING:
    from actorbus.testing.directory_contract import DirectoryContract
    from actorbus.testing.store_contract import StoreContract
    from actorbus.testing.transport_contract import TransportContract

__all__ = [
    "DirectoryContract",
    "ManualClock",
    "SimulatedCrash",
    "StoreContract",
    "TestNode",
    "TransportContract",
]

_SUITES = {
    "DirectoryContract": "directory_contract",
    "StoreContract": "store_contract",
    "TransportContract": "transport_contract",
}


def __getattr__(name: str) -> Any:
    """The suites import pytest, so they are imported when somebody asks for one."""
    if name in _SUITES:
        from importlib import import_module

        return getattr(import_module(f"actorbus.testing.{_SUITES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
