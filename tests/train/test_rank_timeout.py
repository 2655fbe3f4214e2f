"""How long ranks wait for one that is silent, and what they say when it was too long."""

from datetime import timedelta
from typing import Any

import pytest

from pipeline.errors import UsageError
from train import ranks
from train.options import RANK_TIMEOUT_S, Options

pytestmark = pytest.mark.train
AGAIN = {"TORCHELASTIC_RESTART_COUNT": "1", "GROUP_WORLD_SIZE": "1"}
ELSEWHERE_TOO = {**AGAIN, "GROUP_WORLD_SIZE": "2"}


@pytest.mark.parametrize("environment", [{}, AGAIN, ELSEWHERE_TOO], ids=["first", "again", "several machines, again"])
def test_each_way_to_form_the_group_has_the_timeout(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(ranks.dist, "init_process_group", lambda backend, **how: asked.append(how))
    monkeypatch.setattr(ranks, "rendezvous", lambda _, **how: iter([asked.append(how) or (None, 0, 2)]))
    monkeypatch.setattr(ranks, "PrefixStore", lambda *_: None)
    for name, value in {"WORLD_SIZE": "2", **environment}.items():
        monkeypatch.setenv(name, value)
    ranks._join("gloo", timedelta(seconds=RANK_TIMEOUT_S))
    assert asked
    assert all(how["timeout"] == timedelta(minutes=10) for how in asked)


@pytest.mark.parametrize(
    "said",
    [
        "[/x/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 6000ms for recv operation to complete",
        "[/x/gloo/transport/tcp/pair.cc:538] Connection closed by peer [10.77.0.2]:41046",
        "Gloo connectFullMesh failed with [/x/gloo/transport/tcp/pair.h:311] Connect timeout [none]",
    ],
)
def test_a_rank_that_is_gone_is_told_with_what_to_do(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(ranks.Lost, match=r"rank 3 lost another one: (Timed|Connect).*8 s.*--resume"), ranks.losing(8):
        raise RuntimeError(said)


@pytest.mark.parametrize("said", ["shapes differ", "[/x/gloo/transport/tcp/pair.cc:1] op.preamble.length <= op.nbytes"])
def test_other_errors_stay_what_they_are(said: str) -> None:
    with pytest.raises(RuntimeError, match=said[-9:]), ranks.losing(8):
        raise RuntimeError(said)


@pytest.mark.parametrize("seconds", [0.0, float("nan"), float("inf")])
def test_an_impossible_timeout_is_refused(seconds: float) -> None:
    with pytest.raises(UsageError, match="--rank-timeout"):
        Options(data="", out="", rank_timeout=seconds)
