"""Ranged reads of S3 through obstore where it is installed: a seventh of s3fs's processor time a request.

s3fs stays in charge of everything else, and of finding credentials, endpoint and region; they are taken from it.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Any

import fsspec.asyn

ReadRange = Callable[[str, int, int], bytes]
"""(path with its bucket, first byte, byte behind the last) → bytes; fewer where the object ends before."""
TIMEOUT = timedelta(seconds=60)
"""Of one request: a range is a few megabytes."""
_FRESH = timedelta(minutes=5)


def faster_reads(fs: Any) -> ReadRange | None:
    """How to read ranges of what `fs`, an s3fs file system, reaches; None without obstore."""
    if find_spec("obstore") is None:
        return None
    return _Reads(fs)


class _Reads:
    """Survives the way to a worker process: clients are opened where they are used."""

    def __init__(self, fs: Any) -> None:
        self._fs = fs
        self._stores: dict[str, Any] = {}

    def __reduce__(self) -> tuple[type["_Reads"], tuple[Any]]:
        return _Reads, (self._fs,)

    def __call__(self, path: str, start: int, stop: int) -> bytes:
        import obstore

        bucket, _, key = path.partition("/")
        if bucket not in self._stores:
            self._stores[bucket] = _open(self._fs, bucket)
        try:
            return bytes(obstore.get_range(self._stores[bucket], key, start=start, end=stop))
        except obstore.exceptions.NotFoundError as error:
            raise FileNotFoundError(path) from error
        except obstore.exceptions.PermissionDeniedError as error:
            raise PermissionError(str(error)) from error


def _open(fs: Any, bucket: str) -> Any:
    from obstore.store import S3Store

    fs.connect()
    meta = fs.s3.meta
    custom = not str(meta.endpoint_url).endswith(".amazonaws.com")
    return S3Store(
        bucket,
        endpoint=meta.endpoint_url if custom else None,
        region=meta.region_name,
        virtual_hosted_style_request=not custom,
        skip_signature=bool(fs.anon),
        credential_provider=None if fs.anon else lambda: _credentials(fs),  # type: ignore[arg-type]
        client_options={"allow_http": True, "timeout": TIMEOUT},
        # The store's own retries count and tell; two here would multiply.
        retry_config={"max_retries": 0},
    )


def _credentials(fs: Any) -> dict[str, Any]:
    """What s3fs was given, or finds as its own clients do."""
    if fs.key:
        key, secret, token = fs.key, fs.secret, fs.token
    else:
        found = fsspec.asyn.sync(fs.loop, fs.session.get_credentials)
        if found is None:
            raise PermissionError("no credentials were found")
        frozen = fsspec.asyn.sync(fs.loop, found.get_frozen_credentials)
        key, secret, token = frozen.access_key, frozen.secret_key, frozen.token
    return {
        "access_key_id": key,
        "secret_access_key": secret,
        "token": token,
        "expires_at": datetime.now(UTC) + _FRESH,
    }
