"""Every exception that leaves this project.

```
PretrainError
├── UsageError        the request cannot be met: empty AOI, unknown recipe, OUT holds another run
├── ContractError     bytes or records break FORMAT.md
│   ├── VersionMismatch   written by a format this reader does not know
│   ├── BandMismatch      bands are missing or not where their names say
│   └── CorruptShard      a member's bytes are not those that the index promised
├── SourceError       the outside world failed after retries
│   ├── CatalogError      a STAC search failed: the catalog is not what it should be
│   │   └── CatalogUnavailable  it does not answer
│   ├── ReadError         an asset's pixels could not be read
│   └── UnitsFailed       some units of a build failed, the others are kept
└── StreamError       ranks cannot be served fairly, or checkpoint and manifest disagree
```

A message says what failed, with the values, then what to do. Command lines print it without a traceback and exit with
code 2, or with 69 (EX_UNAVAILABLE) where the outside world failed, so that a scheduler knows what to start again. Hrefs
lose their query and their user part before they reach a message: signed URLs are secrets.
"""

import functools
import re

_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<rest>[^\s'\"<>]+)", re.IGNORECASE)
_QUERY = re.compile(r"\?[\w.~%-]+=[^\s'\"<>)]*")


class PretrainError(Exception):
    """Base of all; `exit_code` is what a command line ends with."""

    exit_code = 2


class UsageError(PretrainError):
    """The request cannot be met as it was made."""


class ContractError(PretrainError):
    """Bytes or records break FORMAT.md."""


class VersionMismatch(ContractError):
    """Written by a format version that this reader does not know."""


class BandMismatch(ContractError):
    """Bands are missing, or not the ones that were asked for."""


class CorruptShard(ContractError):
    """A shard member's bytes are not those that the index promised."""


class SourceError(PretrainError):
    """The outside world failed after retries: the same command may do better later."""

    exit_code = 69


class CatalogError(SourceError):
    """A STAC catalog is not there, or is none."""

    exit_code = 2


class CatalogUnavailable(CatalogError):
    """A STAC API does not answer, or keeps failing."""

    exit_code = SourceError.exit_code


class ReadError(SourceError):
    """An asset's pixels could not be read."""

    def __init__(self, scene_id: str, band: str, href: str, why: object, *, permanent: bool = False) -> None:
        """Keep where it failed; `href` and `why` are redacted before they are kept.

        `permanent`: the file is gone or damaged, so that no other try can help.
        """
        self.scene_id, self.band, self.href, self.why = scene_id, band, redact(href), redact(str(why))
        self.permanent = permanent
        super().__init__(
            f"cannot read {band} of {scene_id} from {self.href}: {self.why}. "
            "Check that the asset exists and is readable, then run the same command again: finished units are kept."
        )

    def __reduce__(self) -> tuple["functools.partial[ReadError]", tuple[str, str, str, str]]:
        """Survive the way back from a worker process."""
        return functools.partial(ReadError, permanent=self.permanent), (self.scene_id, self.band, self.href, self.why)


class UnitsFailed(SourceError):
    """Some units of a build failed; the others are kept, and another run goes on with these."""

    def __init__(self, text: str, *, unit_ids: tuple[str, ...]) -> None:
        """Keep which."""
        self.unit_ids = unit_ids
        super().__init__(text)


class StreamError(PretrainError):
    """Ranks cannot be served fairly, or a checkpoint and a manifest disagree."""


def redact(text: str) -> str:
    """`text`, a URL or a message with URLs in it, without their queries, fragments, users and passwords.

    >>> redact("https://user:pw@host/a.tif?sig=secret")
    'https://host/a.tif'
    """
    return _QUERY.sub("", _URL.sub(_without_secrets, text))


def _without_secrets(url: re.Match[str]) -> str:
    authority, slash, path = re.split(r"[?#]", url["rest"], maxsplit=1)[0].partition("/")
    return url["scheme"] + authority.rpartition("@")[2] + slash + path
