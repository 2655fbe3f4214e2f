"""The tree of errors, and that no secret of an address survives in a message."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import errors
from pipeline.errors import PretrainError, ReadError, redact

SECRETS = ("hunter2", "SIGNATURE", "someone", "TOKEN")
URL = "https://someone:hunter2@host.example:8443/a/b.tif?sig=SIGNATURE&se=1#TOKEN"


def test_tree() -> None:
    parents = {
        "UsageError": "PretrainError",
        "ContractError": "PretrainError",
        "VersionMismatch": "ContractError",
        "BandMismatch": "ContractError",
        "CorruptShard": "ContractError",
        "SourceError": "PretrainError",
        "CatalogError": "SourceError",
        "CatalogUnavailable": "CatalogError",
        "ReadError": "SourceError",
        "UnitsFailed": "SourceError",
        "StreamError": "PretrainError",
    }
    found = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and name != "PretrainError"}
    assert {name: kind.__mro__[1].__name__ for name, kind in found.items()} == parents
    assert all(issubclass(kind, PretrainError) for kind in found.values())
    away = {"SourceError", "CatalogUnavailable", "ReadError", "UnitsFailed"}
    assert all(kind.exit_code == (69 if name in away else 2) for name, kind in found.items())


def test_a_plain_address_stays_as_it_is() -> None:
    for href in ("https://host/a.tif", "s3://bucket/a b.tif", "/data/a.tif", "memory://x/y", "../a.tif"):
        assert redact(href) == href


@pytest.mark.parametrize("prefix", ["", "/vsicurl/", "simplecache::"])
def test_redact_takes_user_password_query_and_fragment(prefix: str) -> None:
    clean = redact(prefix + URL)
    assert not any(secret in clean for secret in SECRETS), clean
    assert "host.example:8443/a/b.tif" in clean


@pytest.mark.parametrize("quote", ["'{}'", '"{}"', "({})", "<{}>", "{}: HTTP 403", "/vsicurl/{}", "two {0} {0}"])
def test_redact_finds_urls_anywhere(quote: str) -> None:
    clean = redact(f"it failed for {quote.format(URL)} and that was it")
    assert not any(secret in clean for secret in SECRETS), clean
    assert "host.example:8443/a/b.tif" in clean
    assert clean.startswith("it failed for ")
    assert "that was it" in clean


@given(st.text(st.sampled_from("htps3:/@?#[]%&= a.é"), max_size=30))
def test_redacting_never_fails(text: str) -> None:
    redact(redact(text) + "http://" + text)


def test_redacting_twice_is_redacting_once() -> None:
    assert redact(redact(f"x {URL} y")) == redact(f"x {URL} y")


def test_read_error_holds_no_secret_before_and_after_pickling() -> None:
    error = ReadError("S2A_X", "B02", URL, OSError(f"HTTP 403 for '{URL}'"))
    again = pickle.loads(pickle.dumps(error))
    for one in (error, again):
        assert (one.scene_id, one.band, one.href) == ("S2A_X", "B02", "https://host.example:8443/a/b.tif")
        everything = f"{one} {one!r} {one.args} {vars(one)}"
        assert not any(secret in everything for secret in SECRETS), everything
        assert "HTTP 403" in str(one)
        assert "B02 of S2A_X" in str(one)
    assert str(again) == str(error)
    assert not any(secret.encode() in pickle.dumps(error) for secret in SECRETS)
