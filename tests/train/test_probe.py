"""Probes against plain loops, and on features whose worth is known."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PretrainError, UsageError
from train import probe as command
from train.embedding import META_KEY
from train.probes import heads, metrics
from train.probes.clusters import kmeans
from train.probes.neighbours import nearest, recall
from train.probing import Request, measure

pytestmark = pytest.mark.train


def blobs(count: int, *, classes: int = 3, spread: float = 0.3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, 8))
    labels = draw.integers(0, classes, count)
    return torch.from_numpy(
        (centres[labels] + draw.normal(0, spread, (count, 8))).astype(np.float32)
    ), torch.from_numpy(labels)


# ── metrics ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(st.lists(st.integers(-9, 9), min_size=n, max_size=n), min_size=n, max_size=n)
    )
)
def test_assignment_is_the_best_permutation(cost: list[list[int]]) -> None:
    chosen = metrics.assignment([[float(value) for value in row] for row in cost])
    assert sorted(chosen) == list(range(len(cost)))
    total = sum(cost[row][column] for row, column in enumerate(chosen))
    every = itertools.permutations(range(len(cost)))
    assert total == min(sum(cost[row][column] for row, column in enumerate(one)) for one in every)


def test_mean_average_precision_is_a_plain_loop() -> None:
    draw = np.random.default_rng(0)
    scores, targets = draw.normal(size=(40, 5)), draw.integers(0, 2, (40, 5))
    targets[:, 3] = 0
    found = []
    for column in range(5):
        order = np.argsort(-scores[:, column])
        hits, precisions = 0, []
        for rank, row in enumerate(order, start=1):
            if targets[row, column]:
                hits += 1
                precisions.append(hits / rank)
        if precisions:
            found.append(sum(precisions) / len(precisions))
    wanted = sum(found) / len(found)
    assert metrics.mean_average_precision(torch.tensor(scores), torch.tensor(targets)) == pytest.approx(wanted)


def test_equal_scores_count_together() -> None:
    """Their order is nobody's knowledge: constant scores are worth the share of the class."""
    for order in ([1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 1]):
        assert metrics.average_precision(torch.zeros(4), torch.tensor(order)) == 0.5
    two = metrics.average_precision(torch.tensor([2.0, 1.0, 1.0, 0.0]), torch.tensor([1, 1, 0, 0]))
    assert two == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_clusters_that_are_classes_score_one_whatever_their_numbers() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    renamed = torch.tensor([2, 2, 0, 0, 1, 1])
    assert metrics.matched_accuracy(renamed, labels) == 1
    assert metrics.mutual_information(renamed, labels) == pytest.approx(1)
    assert metrics.matched_accuracy(torch.tensor([0, 1, 0, 1, 0, 1]), labels) == pytest.approx(1 / 3)
    independent = torch.tensor([0, 1]).repeat(50)
    assert metrics.mutual_information(independent, torch.tensor([0, 0, 1, 1]).repeat(25)) == pytest.approx(0, abs=1e-12)


# ── probes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nearest_neighbours_are_a_plain_loop() -> None:
    (train, labels), (test, _) = blobs(60, spread=1.5), blobs(25, spread=1.5, seed=1)
    wanted = []
    for one in test:
        similarity = [float(one @ other / one.norm() / other.norm()) for other in train]
        votes = [0.0, 0.0, 0.0]
        for place in sorted(range(60), key=lambda i: -similarity[i])[:7]:
            votes[int(labels[place])] += np.exp(similarity[place] / 0.07)
        wanted.append(int(np.argmax(votes)))
    assert nearest(train, labels, test, own_M=torch.full((25,), -1), k=7).tolist() == wanted


def test_recall_is_a_plain_loop() -> None:
    queries = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    gallery = queries + torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    found = recall(queries, gallery, at=(1, 5))
    for k, value in found.items():
        hits = 0
        for i, query in enumerate(queries):
            cosines = [float(query @ one / query.norm() / one.norm()) for one in gallery]
            hits += i in sorted(range(30), key=lambda j: -cosines[j])[:k]
        assert value == pytest.approx(hits / 30)
    assert recall(queries, queries, at=(1,)) == {1: 1.0}


def test_collapsed_features_find_nothing() -> None:
    assert recall(torch.ones(20, 3), torch.ones(20, 3), at=(1, 5)) == {1: 0.0, 5: 0.0}


def test_a_sample_has_no_vote_for_itself() -> None:
    noise = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(200) % 4
    found = nearest(noise, labels, noise, own_M=torch.arange(200), k=1)
    assert metrics.accuracy(found, labels) < 0.45


@pytest.mark.parametrize("probe", [heads.linear_probe, heads.mlp_probe])
def test_heads_tell_blobs_apart_and_repeat(probe: Any) -> None:
    (train, labels), (test, wanted) = blobs(90), blobs(60, seed=1)
    logits = probe(train, labels, test, classes=3, seed=0)
    assert heads.score(logits, wanted) > 0.95
    assert torch.equal(logits, probe(train, labels, test, classes=3, seed=0))


def test_a_linear_probe_finds_what_is_linear_in_several_classes() -> None:
    train, test = (torch.randn(count, 6, generator=torch.Generator().manual_seed(count)) for count in (200, 100))
    targets = [(part[:, :3] > 0).long() for part in (train, test)]
    assert heads.score(heads.linear_probe(train, targets[0], test, classes=3, seed=0), targets[1]) > 0.97


def test_the_penalty_is_the_one_of_the_least_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of separable classes a weak one, though the strongest orders them as well."""
    used, real = [], heads._logistic

    def logistic(*call: Any) -> Any:
        used.append(call[3])
        return real(*call)

    monkeypatch.setattr(heads, "_logistic", logistic)
    (train, labels), (test, _) = blobs(90, spread=0.1), blobs(9, seed=1)
    heads.linear_probe(train, labels, test, classes=3, seed=0)
    assert used[:-1] == list(heads.PENALTIES)
    assert used[-1] == min(heads.PENALTIES)


def test_kmeans_finds_blobs() -> None:
    features, labels = blobs(90, spread=0.1)
    clusters = kmeans(features, clusters=3, seed=0)
    assert metrics.matched_accuracy(clusters, labels) == 1
    assert torch.equal(clusters, kmeans(features, clusters=3, seed=0))


def test_kmeans_of_equal_samples() -> None:
    assert kmeans(torch.ones(5, 2), clusters=3, seed=0).shape == (5,)


# ── files and the command ───────────────────────────────────────────────────────────────────────────────────────────


def embedded(path: Path, count: int, seed: int, **changes: Any) -> str:
    features, labels = blobs(count, seed=seed)
    columns = {
        "key": [f"k{seed}-{i}" for i in range(count)],
        "label": labels.tolist(),
        "classes": [[f"c{label}", "land"] for label in labels.tolist()],
        "feature": features.tolist(),
        **changes,
    }
    pq.write_table(pa.table(columns), path)
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return {"train": embedded(tmp_path / "train.parquet", 90, 0), "test": embedded(tmp_path / "test.parquet", 60, 1)}


def request(files: dict[str, str], **changes: Any) -> Request:
    fields = {"label": "label", "probes": ("knn", "linear", "mlp", "kmeans"), "other": None, "seed": 0}
    return Request(**{**fields, **files, **changes})


def test_the_table(files: dict[str, str]) -> None:
    results, counts = measure(
        request(files, probes=("knn", "linear", "mlp", "kmeans", "retrieval"), other=files["test"])
    )
    assert {name: counts[name] for name in ("train", "test", "classes")} == {"train": 90, "test": 60, "classes": 3}
    assert len(results) == 1 + 1 + 1 + 2 + 6
    assert all(one.value > 0.9 for one in results)
    assert all(one.chance is not None and one.chance < 0.6 for one in results)


def test_several_classes_a_sample(files: dict[str, str]) -> None:
    (linear,), counts = measure(request(files, label="classes", probes=("linear",)))
    assert counts["classes"] == 4
    assert (linear.metric, linear.value > 0.95) == ("mAP", True)
    with pytest.raises(UsageError, match="one class a sample"):
        measure(request(files, label="classes"))


def test_classes_that_training_never_saw_are_left_out(files: dict[str, str], tmp_path: Path) -> None:
    labels = [9] * 30 + [0, 1, 2] * 10
    other = embedded(tmp_path / "other.parquet", 60, 1, label=labels)
    _, counts = measure(request(files, test=other, probes=("knn",)))
    assert counts["test"] == counts["of classes never seen, left out"] == 30


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"probes": ("knn", "magic")}, "magic"),
        ({"train": "nowhere.parquet"}, "not there"),
        ({"probes": ("retrieval",)}, "--other"),
    ],
)
def test_what_cannot_be_measured_is_told(files: dict[str, str], changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PretrainError, match=said):
        measure(request(files, **changes))


def test_samples_on_both_sides_are_no_test_of_a_head(files: dict[str, str]) -> None:
    both = {"train": files["train"], "test": files["train"]}
    (knn,), _ = measure(request(both, probes=("knn",)))
    assert knn.value > 0.9
    with pytest.raises(UsageError, match="share samples"):
        measure(request(both, probes=("linear",)))


def test_features_of_other_weights_or_unprojected_ones_are_not_compared(files: dict[str, str], tmp_path: Path) -> None:
    def told(name: str, path: str, **facts: str) -> str:
        table = pq.read_table(path).replace_schema_metadata({META_KEY: json.dumps(facts).encode()})
        pq.write_table(table, tmp_path / name)
        return str(tmp_path / name)

    first = told("a.parquet", files["train"], recipe="x", weights="step 1")
    with pytest.raises(UsageError, match="different"):
        measure(request(files, train=first, test=told("b.parquet", files["test"], recipe="x", weights="step 2")))
    raw = told("c.parquet", files["test"], pooling="pooled")
    with pytest.raises(UsageError, match="--pooling projected"):
        measure(request(files, test=raw, other=raw, probes=("retrieval",)))


def test_what_is_not_finite_is_refused(files: dict[str, str], tmp_path: Path) -> None:
    bad = embedded(tmp_path / "bad.parquet", 2, 0, feature=[[float("nan")] * 8, [1.0] * 8])
    with pytest.raises(PretrainError, match="not finite"):
        measure(request(files, test=bad))


def test_one_class_is_nothing_to_tell_apart(files: dict[str, str], tmp_path: Path) -> None:
    alone = embedded(tmp_path / "alone.parquet", 30, 0, label=[1] * 30)
    with pytest.raises(UsageError, match="1 classes"):
        measure(request(files, train=alone))
    nothing = embedded(tmp_path / "nothing.parquet", 30, 0, label=pa.array([None] * 30, pa.int32()))
    with pytest.raises(UsageError, match="0 classes"):
        measure(request(files, train=nothing))


def test_the_command(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["probe.py", "--train", files["train"], "--test", files["test"], "--probes", "knn"]
    monkeypatch.setattr("sys.argv", [*flags, "--json"])
    assert command.main() == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["metric"] == "top-1"
    monkeypatch.setattr("sys.argv", flags)
    assert command.main() == 0
    told = capsys.readouterr().out
    assert "kNN 20" in told
    assert "90 train, 60 test, 3 classes" in " ".join(told.split())
    assert "never seen" not in told
    monkeypatch.setattr("sys.argv", [*flags[:2], "nowhere.parquet", *flags[3:]])
    assert command.main() == 2
    assert capsys.readouterr().err.count("\n") == 1
