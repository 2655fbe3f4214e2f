"""Threads finish in any order; their results come in that of the work, and few of them wait."""

import time

import pytest

from ingest.threads import in_order

pytestmark = pytest.mark.ingest


def test_units_are_told_in_order_and_few_at_a_time() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        time.sleep(0.002 * (number % 3 == 0))
        return number

    seen = 0
    for number in in_order(work, range(50), threads=3):
        assert number == seen
        seen += 1
        assert len(begun) <= seen + 6
    assert seen == 50


def test_what_fails_is_raised_and_the_rest_is_not_begun() -> None:
    begun: list[int] = []

    def work(number: int) -> float:
        begun.append(number)
        return 1 / (number - 3)

    with pytest.raises(ZeroDivisionError):
        list(in_order(work, range(1000), threads=2))
    assert len(begun) < 20
