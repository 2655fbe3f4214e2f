"""What `--catalog` may say, and that the collections of a profile are those of its catalog's real records."""

import json
from pathlib import Path

import pytest

from ingest.catalogs.profiles import KNOWN, address_of, profile_of

pytestmark = pytest.mark.ingest


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_a_name_and_its_host_have_one_profile(known: object) -> None:
    assert profile_of(known.name) is profile_of(known.url) is profile_of(f"{known.url}/search?x=1") is known
    assert address_of(known.name) == known.url
    assert address_of(known.url) == known.url


@pytest.mark.parametrize("other", ["https://example.org/stac", "/data/cdse", "items.parquet", "s3://cdse/catalog.json"])
def test_anything_else_has_the_default(other: str) -> None:
    assert profile_of(other).name == ""
    assert address_of(other) == other


@pytest.mark.parametrize(("prefix", "name"), [("pc", "planetary-computer"), ("es", "earth-search"), ("cdse", "cdse")])
def test_collections_are_those_of_real_records(prefix: str, name: str, stac_records: Path) -> None:
    seen = set()
    for path in stac_records.glob(f"{prefix}_*.json"):
        document = json.loads(path.read_text())
        seen |= {item["collection"] for item in document.get("features", [document])}
    profile = profile_of(name)
    asked = {*profile.s2.values(), *profile.s1.values()}
    assert next(iter(profile.s2.values())) in seen
    assert asked - seen <= {"sentinel-2-l1c", "sentinel-1-grd"}  # CDSE's are not among the records
