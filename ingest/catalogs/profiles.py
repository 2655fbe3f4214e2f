"""What is known of the public catalogs: where they are, what they call things, how fast they may be asked.

In: what `--catalog` says. Out: a `Profile`. How an asset is opened follows from its own address (`signing`), so that
plan files and copies of a catalog need no profile.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pipeline.errors import UsageError, redact


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How one STAC catalog is asked.

    Collections, boxes and dates are what every API filters by. Nothing else is asked of one: a filter that a server
    takes and ignores, or applies in its own way, would decide what is found.
    """

    name: str
    """What `--catalog` may call it."""
    url: str
    """Of the STAC API; empty where the user gives the address."""
    s2: Mapping[str, str]
    """Collections of Sentinel-2 by level, the default first: `l2a`, `l1c`."""
    s1: Mapping[str, str]
    """Collections of Sentinel-1 by product: `rtc` (gamma0), `grd`."""
    page: int
    """Items a page. Larger ones make public APIs answer 502."""
    requests_per_s: float
    """Requests in a second, at most."""
    throttles: frozenset[int]
    """HTTP codes that mean `too fast` or `busy` here: to be asked again later."""
    region: str
    """Where the pixels lie: reading them elsewhere is slower, and someone pays for the way out."""


BUSY = frozenset({429, 502, 503, 504})
"""HTTP codes that mean `too fast` or `busy` everywhere."""
_PLANETARY_COMPUTER = Profile(
    name="planetary-computer",
    url="https://planetarycomputer.microsoft.com/api/stac/v1",
    s2={"l2a": "sentinel-2-l2a"},
    s1={"rtc": "sentinel-1-rtc", "grd": "sentinel-1-grd"},
    page=200,
    requests_per_s=5.0,
    throttles=BUSY,
    region="Azure West Europe",
)
_EARTH_SEARCH = Profile(
    name="earth-search",
    url="https://earth-search.aws.element84.com/v1",
    s2={"l2a": "sentinel-2-c1-l2a", "l1c": "sentinel-2-l1c"},
    s1={"grd": "sentinel-1-grd"},
    page=100,
    requests_per_s=5.0,
    throttles=BUSY | {403},
    region="AWS us-west-2 (sentinel-2-l1c and sentinel-1-grd: eu-central-1)",
)
_CDSE = Profile(
    name="cdse",
    url="https://stac.dataspace.copernicus.eu/v1",
    s2={"l2a": "sentinel-2-l2a", "l1c": "sentinel-2-l1c"},
    s1={"grd": "sentinel-1-grd"},
    page=100,
    requests_per_s=4.0,
    throttles=BUSY,
    region="CloudFerro, Warsaw",
)
_ANY = Profile(
    name="",
    url="",
    s2={"l2a": "sentinel-2-l2a", "l1c": "sentinel-2-l1c"},
    s1={"rtc": "sentinel-1-rtc", "grd": "sentinel-1-grd"},
    page=200,
    requests_per_s=20.0,
    throttles=BUSY,
    region="",
)
KNOWN: tuple[Profile, ...] = (_PLANETARY_COMPUTER, _EARTH_SEARCH, _CDSE)


def profile_of(catalog: str) -> Profile:
    """The profile of a name or of an address; recognised hosts have their own.

    >>> profile_of("https://earth-search.aws.element84.com/v1/").s2["l2a"]
    'sentinel-2-c1-l2a'

    Raises:
        UsageError: it has a host that is none.
    """
    try:
        host = urlsplit(catalog).hostname
    except ValueError as error:
        raise UsageError(f"--catalog {redact(catalog)}: {error}. Check the address.") from error
    return next((known for known in KNOWN if known.name == catalog or urlsplit(known.url).hostname == host), _ANY)


def address_of(catalog: str) -> str:
    """The address of a catalog that may be given by its name."""
    return next((known.url for known in KNOWN if known.name == catalog), catalog)
