"""Addresses in STAC items: made absolute, and freed of signatures, which expire and are nobody else's business."""

import posixpath
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

from pipeline.errors import CatalogError, redact

_SIGNATURES = {
    "sig", "signature", "x-amz-signature", "x-amz-security-token", "x-goog-signature", "awsaccesskeyid",
    "googleaccessid", "token", "access_token", "apikey", "api_key", "subscription-key", "key-pair-id",
}  # fmt: skip
_EXTRAS = {"metadata", "overview", "thumbnail"}
"""Roles of assets that are no pixels."""
_NUMBERS = {"geometry", "bbox"}
BLOBS = ".blob.core.windows.net"
"""Hosts whose addresses are signed here, so that a signature that a catalog put there is not needed."""


def join(base: str, href: str) -> str:
    """`href` seen from the file at `base`."""
    if "://" in href or href.startswith("/") or urlsplit(href).scheme:
        return href
    if urlsplit(base).scheme in {"http", "https"}:
        return urljoin(base, href)
    scheme, mark, path = base.rpartition("://")
    return scheme + mark + posixpath.normpath(posixpath.join(posixpath.dirname(path), href))


def absolute(item: Mapping[str, Any], address: str) -> dict[str, Any]:
    """`item`, which lies at `address`, with absolute addresses of its assets."""
    assets = {key: asset and {**asset, "href": join(address, asset["href"])} for key, asset in item["assets"].items()}
    return {**item, "assets": assets}


def is_signed(href: str) -> bool:
    """Whether an address carries a signature, a token, or a user's name.

    >>> is_signed("https://host/a.tif?sv=2024&sig=x"), is_signed("https://host/tiles?assets=visual")
    (True, False)
    """
    if "://" not in href or ("?" not in href and "@" not in href):
        return False
    parts = urlsplit(href)
    names = {name.lower() for name in parse_qs(parts.query, keep_blank_values=True)}
    return bool(names & _SIGNATURES) or "@" in parts.netloc


def unsigned(item: Mapping[str, Any]) -> dict[str, Any]:
    """`item` without signatures, wherever they stand, and without empty values.

    Raises:
        CatalogError: pixels are behind a signature that cannot be renewed here.
    """
    for key, asset in item["assets"].items():
        href, roles = (asset or {}).get("href", ""), set((asset or {}).get("roles") or ())
        if is_signed(href) and not roles & _EXTRAS and not (urlsplit(href).hostname or "").endswith(BLOBS):
            raise CatalogError(
                f"the catalog hands out signed addresses: {key} of {item['id']} at {redact(href)}. They expire before "
                "a build ends, and are never written. Use a catalog with plain ones, with your own credentials."
            )
    return {key: value if key in _NUMBERS else _stripped(value) for key, value in item.items()}


def _stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stripped(one) for key, one in value.items() if one is not None}
    if isinstance(value, list | tuple):
        return [_stripped(one) for one in value]
    return redact(value) if isinstance(value, str) and is_signed(value) else value
