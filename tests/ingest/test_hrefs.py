"""Addresses of items: absolute, and without signatures."""

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.catalogs.hrefs import is_signed, join, unsigned
from pipeline.errors import CatalogError

pytestmark = pytest.mark.ingest
SECRET = "sv=1&sig=hunter2"


@pytest.mark.parametrize(
    ("href", "signed"),
    [
        ("https://h/x.tif?sv=1&sig=a%2Bb", True),
        ("https://h/x.tif?X-Amz-Signature=a&X-Amz-Date=b", True),
        ("https://h/x.tif?X-Goog-Signature=a", True),
        ("https://h/x.tif?AWSAccessKeyId=a&Signature=b&Expires=1", True),
        ("https://h/x.tif?token=", True),
        ("https://user:hunter2@h/x.tif", True),
        ("s3://bucket/x@2.tif", False),
        ("https://h/x.tif", False),
        ("https://h/tiles?collection=c&assets=visual", False),
        ("/a/b?sig=c.tif", False),
    ],
)
def test_what_counts_as_signed(href: str, signed: bool) -> None:
    assert is_signed(href) is signed


def _item(**assets: Any) -> dict[str, Any]:
    return {"id": "x", "properties": {"a": None, "b": [None, {"c": None}]}, "assets": assets, "links": []}


def test_no_signature_is_left_wherever_it_stood() -> None:
    item = _item(
        B02={"href": f"https://account.blob.core.windows.net/c/B02.tif?{SECRET}", "alternate": [{"x": None}]},
        thumbnail={"href": f"https://host/t.png?{SECRET}", "roles": ["thumbnail"]},
        tiles={"href": "https://host/tiles?collection=c", "alternate": {"s3": {"href": "https://u:hunter2@host/x"}}},
    )
    item["links"] = [{"rel": "self", "href": f"https://host/x?{SECRET}"}]
    clean = unsigned(item)
    assert "hunter2" not in json.dumps(clean)
    assert clean["assets"]["B02"]["href"] == "https://account.blob.core.windows.net/c/B02.tif"
    assert clean["assets"]["tiles"]["href"] == "https://host/tiles?collection=c"
    assert clean["links"] == [{"rel": "self", "href": "https://host/x"}]


def test_empty_values_are_left_out() -> None:
    assert unsigned(_item())["properties"] == {"b": [None, {}]}


@pytest.mark.parametrize("roles", [None, [], ["data"]])
def test_pixels_behind_a_foreign_signature_are_refused(roles: Any) -> None:
    item = _item(B02={"href": "https://bucket.s3.amazonaws.com/B02.tif?X-Amz-Signature=hunter2", "roles": roles})
    with pytest.raises(CatalogError, match=r"B02 of x at https://bucket\.s3\.amazonaws\.com/B02\.tif\.") as caught:
        unsigned(item)
    assert "hunter2" not in str(caught.value)


def test_real_records_are_what_they_were(stac_records: Path) -> None:
    """They carry no signature: only empty values go."""
    for path in stac_records.glob("pc_*.json"):
        document = json.loads(path.read_text())
        for item in document.get("features", [document]):
            assert unsigned(item)["assets"] == {
                key: {name: value for name, value in asset.items() if value is not None}
                for key, asset in item["assets"].items()
            }


@pytest.mark.parametrize(
    ("base", "href", "want"),
    [
        ("/a/b/c.json", "./d.tif", "/a/b/d.tif"),
        ("/a/b/c.json", "d.tif", "/a/b/d.tif"),
        ("/a/b/c.json", "../d.tif", "/a/d.tif"),
        ("/a/b/c.json", "../../d/e.tif", "/d/e.tif"),
        ("/a/b/c.json", "/d.tif", "/d.tif"),
        ("/a/b/c.json", "https://host/d.tif", "https://host/d.tif"),
        ("c.json", "./d.tif", "d.tif"),
        ("s3://bucket/b/c.json", "../d.tif", "s3://bucket/d.tif"),
        ("https://host/b/c.json?sig=x", "../d.tif", "https://host/d.tif"),
        ("https://host/b/c.json", "d.tif?sig=x", "https://host/b/d.tif?sig=x"),
    ],
)
def test_join(base: str, href: str, want: str) -> None:
    assert join(base, href) == want
