"""Receipts are what says that a unit is done."""

import pytest

from ingest import receipt
from ingest.receipt import Outcome, Receipt
from pipeline.errors import ContractError
from pipeline.store import Store

pytestmark = pytest.mark.ingest


def _receipt(unit_id: str) -> Receipt:
    outcomes = (Outcome(key="k", reason="cloud", valid_fraction=1.0, cloud_fraction=None),)
    nothing = {"shards": (), "rows": (), "members": (), "s2": None, "s1": None}
    return Receipt(unit_id=unit_id, plan_fingerprint="f", outcomes=outcomes, **nothing)


def test_round_trip_and_done() -> None:
    store = Store.at("memory://receipts")
    assert receipt.done(store) == set()
    for unit_id in ("u00000", "u00012"):
        receipt.publish(store, _receipt(unit_id))
    store.publish("receipts/notes.txt", b"")
    assert receipt.done(store) == {"u00000", "u00012"}
    assert receipt.load(store, "u00012") == _receipt("u00012")


def test_damage_is_named() -> None:
    store = Store.at("memory://receipts-damaged")
    store.publish("receipts/u00000.json", b"{")
    with pytest.raises(ContractError, match=r"receipts/u00000\.json"):
        receipt.load(store, "u00000")
