"""A host's budget, on a clock that is moved by hand."""

from collections.abc import Callable

import pytest

from ingest.catalogs.budget import RETRIES, SLOWEST_PER_S, Budget

pytestmark = pytest.mark.ingest


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds


@pytest.fixture
def make() -> Callable[[float], tuple[Budget, Clock]]:
    def one(most_per_s: float) -> tuple[Budget, Clock]:
        clock = Clock()
        return Budget(most_per_s=most_per_s, now=lambda: clock.now_s, sleep=clock.sleep), clock

    return one


def _seconds(budget: Budget, clock: Clock, requests: int) -> float:
    start_s = clock.now_s
    for _ in range(requests):
        budget.wait()
    return clock.now_s - start_s


def test_never_more_than_the_rate_and_one_burst(make: Callable[[float], tuple[Budget, Clock]]) -> None:
    budget, clock = make(5.0)
    assert _seconds(budget, clock, 5) == 0
    assert _seconds(budget, clock, 100) == pytest.approx(100 / 5)
    clock.now_s += 3600
    assert _seconds(budget, clock, 5) == 0
    assert _seconds(budget, clock, 10) == pytest.approx(2)


def test_busy_answers_halve_the_rate_and_good_ones_bring_it_back(
    make: Callable[[float], tuple[Budget, Clock]],
) -> None:
    budget, _ = make(8.0)
    for want in (4.0, 2.0, 1.0):
        assert budget.failed(pause_s=0, busy=True)
        assert budget.rate_per_s == want
    rates = []
    for _ in range(200):
        budget.answered()
        rates.append(budget.rate_per_s)
    assert rates == sorted(rates)
    assert rates[9] < 3 < rates[-1] == 8.0
    for _ in range(50):
        budget.failed(pause_s=0, busy=True)
    assert budget.rate_per_s == SLOWEST_PER_S


def test_a_reset_does_not_slow(make: Callable[[float], tuple[Budget, Clock]]) -> None:
    budget, _ = make(8.0)
    budget.failed(pause_s=1, busy=False)
    assert budget.rate_per_s == 8.0


def test_everybody_waits_as_long_as_the_host_asked(make: Callable[[float], tuple[Budget, Clock]]) -> None:
    budget, clock = make(1000.0)
    budget.failed(pause_s=30, busy=True)
    assert _seconds(budget, clock, 1) == pytest.approx(30)


def test_tries_end_and_good_answers_earn_some_back(make: Callable[[float], tuple[Budget, Clock]]) -> None:
    budget, _ = make(5.0)
    assert [budget.failed(pause_s=0, busy=False) for _ in range(int(RETRIES) + 1)] == [True] * int(RETRIES) + [False]
    for _ in range(11):
        budget.answered()
    assert budget.failed(pause_s=0, busy=False)
    assert not budget.failed(pause_s=0, busy=False)
