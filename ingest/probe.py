"""What a store must do that a data set is written to, tried on an object: five requests, and one that removes it.

Workers and trainers rely on it: what was written is what is read, now and by everybody; a name can be written again
(units that are done anew); a listing has what was written (receipts); ranges and the last bytes of an object are those
that were asked for (shards, and zarr's shards, whose index is at the end).
"""

import secrets

from pipeline.errors import UsageError
from pipeline.store import Store

SIZE = 4096
"""Bytes of the object."""


def require(store: Store) -> None:
    """Try the store.

    Raises:
        UsageError: it does not do what a data set needs.
    """
    wrong = faults(store, new_name())
    if wrong:
        raise UsageError(f"{store.url} cannot hold a data set: {'; '.join(wrong)}. Give an --out in another store.")


def new_name() -> str:
    """Of an object that no other command tries the store with."""
    return f"probe-{secrets.token_hex(8)}"


def faults(store: Store, name: str) -> list[str]:
    """What the store does wrong with an object `name`, in words; nothing stays in it.

    Raises:
        PretrainError: it may not be written to, or fails.
    """
    old, new = secrets.token_bytes(SIZE), secrets.token_bytes(SIZE)
    store.publish(name, old)
    try:
        store.publish(name, new)
        middle, end = store.read_range(name, 1000, 2000), store.read_end(name, 100)
        listed = name in store.names()
    except FileNotFoundError:
        return ["what was written is not there when it is read"]
    finally:
        store.discard(name)
    return [
        *([] if middle == new[1000:2000] else [_wrong_range(middle, old)]),
        *([] if end == new[-100:] else ["the last 100 bytes of an object are not those that were written"]),
        *([] if listed else ["a listing does not have what was written before it"]),
    ]


def _wrong_range(middle: bytes, old: bytes) -> str:
    if middle == old[1000:2000]:
        return "an object that is written again is read as it was before"
    return "a range of an object is not what was written there"
