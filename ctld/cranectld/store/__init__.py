"""What survives a restart of the controller: a port, and SQLite behind it.

`records` are the values that are kept, `port` is what the rest of the program asks for, `sqlite` answers it with the one place of all SQL (`migrations`
has the tables, `writer` the thread that commits, `backup` the copy of a running store). Another database takes the place of `sqlite` and its helpers.
"""

from cranectld.store.port import Store
from cranectld.store.records import (
    DECISIONS_KEPT,
    MAX_BACKLOG,
    DecisionRecord,
    Expiry,
    NodeRecord,
    OwedEpilog,
    RequestRecord,
    Restored,
    StoreError,
)

__all__ = (
    "DECISIONS_KEPT",
    "MAX_BACKLOG",
    "DecisionRecord",
    "Expiry",
    "NodeRecord",
    "OwedEpilog",
    "RequestRecord",
    "Restored",
    "Store",
    "StoreError",
)
