"""HTTP to catalogs and token servers: not faster than a host allows, and again after what passes.

In: a `requests` session that is mounted here. Out: answers whose body is whole. Throttling, gateways' errors, resets
and cut bodies are tried again; anything else is for the caller.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from ingest.catalogs.budget import Budget
from ingest.catalogs.profiles import Profile
from pipeline.errors import CatalogUnavailable, redact

TRIES = 6
"""How often one request is sent."""
PAUSE_S = 0.5
"""Seconds before the second try, at most; doubled for each further one."""
PATIENCE_S = 120.0
"""Seconds that a host may ask to wait. One that asks for more is told of."""
TIMEOUT_S = (10, 60)
"""Seconds to connect, and of silence within an answer."""
_budgets: dict[str, Budget] = {}
_lock = Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """A transport adapter for `requests`: the hook that pystac-client leaves to its users."""

    profile: Profile
    """Whose rate and codes."""
    inner: HTTPAdapter = field(default_factory=lambda: HTTPAdapter(pool_maxsize=16))
    """Sends once."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """The answer, after as many tries as it takes.

        Raises:
            CatalogUnavailable: the host kept failing.
        """
        budget = budget_of(str(request.url), self.profile)
        for attempt in range(TRIES):
            budget.wait()
            answer, why = self._once(request, options)
            if why is None and answer is not None:
                budget.answered()
                return answer
            pause_s = _pause_s(attempt, answer)
            busy = answer is not None and answer.status_code in self.profile.throttles - {502, 504}
            if pause_s > PATIENCE_S:
                why = f"{why}, and asks to wait {pause_s:.0f} s"
                break
            if not budget.failed(pause_s=pause_s, busy=busy):
                why = f"{why}, and has failed too often"
                break
        where = redact(str(request.url)).partition("?")[0]
        raise CatalogUnavailable(
            f"{where} keeps failing: {why}. Check the network and the address. With --out what was found is kept: run "
            "the same command again later."
        )

    def close(self) -> None:
        """Let go of connections."""
        self.inner.close()

    def _once(
        self, request: requests.PreparedRequest, options: Mapping[str, Any]
    ) -> tuple[requests.Response | None, str | None]:
        """The answer, where there is one, and why it will not do."""
        try:
            answer = self.inner.send(request, **options)
            body = answer.content  # read here: a body that is cut off is a failure to be tried again
        except requests.RequestException as error:
            return None, f"no whole answer ({type(error).__name__})"
        if answer.status_code in self.profile.throttles:
            return answer, f"HTTP {answer.status_code}"
        if answer.ok and body.lstrip()[:1] == b"{":
            try:
                answer.json()
            except ValueError:
                return answer, "the JSON is cut off"
        return answer, None


def session(profile: Profile) -> requests.Session:
    """A session that is patient with every host."""
    made = requests.Session()
    mount(made, profile)
    return made


def mount(one: requests.Session, profile: Profile) -> None:
    """Make a session patient."""
    adapter = Patient(profile=profile)
    for scheme in ("http://", "https://"):
        one.mount(scheme, adapter)  # type: ignore[arg-type, unused-ignore]  # an adapter by its methods


def budget_of(url: str, profile: Profile) -> Budget:
    """This process's budget for the host of `url`."""
    with _lock:
        return _budgets.setdefault(urlsplit(url).netloc, Budget(most_per_s=profile.requests_per_s))


def server_time(answer: requests.Response) -> datetime:
    """What the server's clock said, UTC; ours where it does not tell."""
    try:
        return parsedate_to_datetime(answer.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return datetime.now(UTC)


def _pause_s(attempt: int, answer: requests.Response | None) -> float:
    """Seconds to wait: what the host asks for, and jitter, so that many do not come back at once."""
    jitter_s = random.uniform(0, PAUSE_S * 2**attempt)  # noqa: S311  not cryptography
    asked = answer.headers.get("Retry-After", "") if answer is not None else ""
    if answer is None or not asked:
        return jitter_s
    try:
        return float(asked) + jitter_s
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(asked) - server_time(answer)).total_seconds()) + jitter_s
    except (ValueError, TypeError):
        return jitter_s
