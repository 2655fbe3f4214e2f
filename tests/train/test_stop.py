"""A request to stop is heard once, or twice from a launcher that passes it on."""

import os
import signal

import pytest

from train.stop import SIGNALS, stoppable

pytestmark = pytest.mark.train


@pytest.mark.parametrize("number", SIGNALS)
def test_a_rank_outlives_the_echo_of_its_launcher(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with stoppable() as request:
        os.kill(os.getpid(), number)
        assert request.made
        assert signal.getsignal(number) == request.make, "the next one would end the process before it has saved"
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_without_a_launcher_the_second_signal_is_not_waited_for(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    before = signal.getsignal(number)
    with stoppable() as request:
        os.kill(os.getpid(), number)
        assert request.made
        assert signal.getsignal(number) == signal.SIG_DFL
    assert signal.getsignal(number) == before
