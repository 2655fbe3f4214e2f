"""The probe of real chips: no place on both sides, scores and intervals as plain loops give them."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import tiny_run
import torch
from benchmarks import places, probe
from tiny_pairs import write_pairs

from train.features import Encoder
from train.models.blocks import patchify
from train.provenance import Provenance
from train.reporting.encoded import BANDS, RANDOM, TRAINED

pytestmark = pytest.mark.train
NAMES = ("a", "b", "c")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost these small problems seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def area(name: str, west: float, south: float) -> dict[str, Any]:
    ring = [[west, south], [west + 2, south], [west + 2, south + 2], [west, south + 2], [west, south]]
    return {"properties": {"name": name}, "geometry": {"type": "Polygon", "coordinates": [ring]}}


AREAS = {"type": "FeatureCollection", "features": [area("a", 0, 0), area("b", 11, 47), area("c", -50, -9)]}


def drawn(seed: int, count: int = 90) -> probe.Units:
    """Units of three places; 0 stands for an unknown class, and 4 is in `c` only."""
    draw = np.random.default_rng(seed)
    place_N, class_N = draw.choice(NAMES, count), draw.integers(0, 4, count)
    class_N[(place_N == "c") & (class_N == 3)] = 4
    classes = [int(one) or None for one in class_N]
    features = {whose: torch.from_numpy(draw.normal(size=(count, 5))).float() for whose in probe.WHOSE}
    return probe.Units(places=place_N, west=draw.random(count) < 0.5, classes=classes, features=features)


@pytest.mark.parametrize("place", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_a_place_is_never_on_both_sides(seed: int, place: str) -> None:
    units = drawn(seed)
    asks = probe.question(units, place, places.UNSEEN)
    assert {*units.places[asks.test_N]} == {place}
    assert {*units.places[asks.train_N]} == {*NAMES} - {place}
    seen = {units.classes[i] for i in np.flatnonzero(asks.train_N)}
    for i, (where, label) in enumerate(zip(units.places, units.classes, strict=True)):
        assert asks.train_N[i] == (where != place and label is not None)
        assert asks.test_N[i] == (where == place and label is not None and label in seen)
    if place == "c":
        assert 4 not in {units.classes[i] for i in np.flatnonzero(asks.test_N)}


@pytest.mark.parametrize("place", NAMES)
def test_half_a_place_is_learned_and_the_other_half_asked(place: str) -> None:
    units = drawn(3)
    asks = probe.question(units, place, places.HALF)
    assert not (asks.train_N & asks.test_N).any()
    for i, (where, west) in enumerate(zip(units.places, units.west, strict=True)):
        assert asks.train_N[i] == ((where != place or west) and units.classes[i] is not None)
        assert not asks.test_N[i] or (where == place and not west)


def test_the_place_that_is_left_out_is_not_pretrained_on(tmp_path: Path) -> None:
    write_pairs(str(tmp_path), shards=(("train", 2),))  # at 12 E, 48 N
    known = places.boxes(AREAS)
    probe.check_apart(tmp_path, "a", known)
    with pytest.raises(SystemExit, match="holds chips of b"):
        probe.check_apart(tmp_path, "b", known)


def test_areas_lose_one_place_and_boxes_hold_their_points() -> None:
    left = places.without(AREAS, "b")
    assert [one["properties"]["name"] for one in left["features"]] == ["a", "c"]
    assert json.loads(json.dumps(left))["type"] == "FeatureCollection"
    known = places.boxes(AREAS)
    assert known["b"] == (11, 47, 13, 49)
    assert [places.place_of(*point, known) for point in ((1, 1), (12, 48), (-49, -8))] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="no place"):
        places.place_of(5, 5, known)
    with pytest.raises(ValueError, match=r"a.*twin"):
        places.place_of(1, 1, known | {"twin": (0, 0, 3, 3)})


def test_scores_of_perfect_constant_and_random_answers() -> None:
    wanted = torch.tensor([0, 0, 0, 0, 0, 0, 2, 2, 3])
    assert places.score(wanted, wanted) == places.Score(accuracy=1.0, balanced=1.0)
    constant = places.always(torch.tensor([1, 2, 2]), wanted)
    assert (constant.accuracy, constant.balanced) == pytest.approx((2 / 9, 1 / 3))
    assert places.always(torch.tensor([1, 1, 0]), wanted) == places.Score(accuracy=0.0, balanced=0.0)
    said = torch.from_numpy(np.random.default_rng(0).integers(0, 4, len(wanted)))
    pairs = list(zip(said.tolist(), wanted.tolist(), strict=True))
    recalls = [fmean(one == label for one, label in pairs if label == want) for want in (0, 2, 3)]
    found = places.score(said, wanted)
    assert (found.accuracy, found.balanced) == pytest.approx((fmean(a == b for a, b in pairs), fmean(recalls)))


def test_intervals_are_those_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "RESAMPLES", 400)
    values = np.random.default_rng(1).normal(size=(3, 4))
    draw = np.random.default_rng(7)
    place_RP, seed_RPS = draw.integers(3, size=(400, 3)), draw.integers(4, size=(400, 3, 4))
    means = []
    for r in range(400):
        picked = [[values[place_RP[r, p], seed_RPS[r, p, s]] for s in range(4)] for p in range(3)]
        means.append(fmean(value for row in picked for value in row))
    low, high = np.quantile(means, [0.025, 0.975])
    assert places.resampled(values, seed=7) == pytest.approx((low, high))


def test_intervals_come_from_places_before_seeds() -> None:
    """Seeds that agree leave what places differ by; one place leaves what its seeds differ by."""
    apart = np.repeat([[0.0], [1.0]], 50, axis=1)
    assert places.resampled(apart) == (0.0, 1.0)
    assert places.resampled(np.full((3, 3), 0.25)) == (0.25, 0.25)
    low, high = places.resampled(np.array([[0.0, 1.0]]))
    assert (low, high) == (0.0, 1.0)


def test_probes_find_features_that_tell_and_learn_nothing_of_constant_ones() -> None:
    units = drawn(4)
    told = torch.tensor([one or 0 for one in units.classes])
    features = {TRAINED: torch.eye(5)[told], RANDOM: torch.ones(len(told), 5), BANDS: units.features[BANDS]}
    asks = probe.question(units._replace(features=features), "a", places.UNSEEN)
    found = probe.measured(units._replace(features=features), asks, 0)
    chance = places.always(asks.labels.train_N, asks.labels.val_M)
    for metric in probe.METRICS:
        assert found["linear", TRAINED, metric] == found[probe.PROBES[1], TRAINED, metric] == 1.0
        assert (
            found["linear", RANDOM, metric]
            == found["linear", probe.SAME, metric]
            == dataclasses.asdict(chance)[metric]
            < 1.0
        )


def test_a_place_with_too_few_to_ask_is_not_scored() -> None:
    units = drawn(5)
    few = np.flatnonzero(units.places == "a")[probe.FEWEST - 1 :]
    units.places[few] = "b"
    assert probe.measured(units, probe.question(units, "a", places.UNSEEN), 0) == {}
    assert probe.measured(units, probe.question(units, "b", places.UNSEEN), 0)


def test_differences_are_paired_and_have_a_sign() -> None:
    task, one = probe.TASKS[0], {TRAINED: 0.75, RANDOM: 0.5, BANDS: 1.0, probe.SAME: 0.25}
    found = {
        (column, whose, metric): one[whose] for column in probe.PROBES for whose in one for metric in probe.METRICS
    }
    scores: dict[Any, Any] = {(task, place, seed): found for task in probe.TASKS for place in "ab" for seed in range(2)}
    scores |= {(task, "c", seed): {} for seed in range(2)}
    (first, second, *_) = probe.differences(scores)
    assert (first["difference"], first["accuracy [95 %]"]) == ("trained - untrained", "0.250 [0.250, 0.250]")
    assert (second["balanced [95 %]"], second["balanced, Student's t"]) == ("-0.250 [-0.250, -0.250]", "+-0.000")
    row, *_, same = list(probe.means(scores))
    assert (same["features"], same["balanced [95 %]"]) == ("same answer", "0.250 [0.250, 0.250]")
    assert (row["places"], row["accuracy [95 %]"]) == (2, "0.750 [0.750, 0.750]")
    assert next(iter(probe.by_place(scores)))["untrained"] == "0.500 (0.500 to 0.500)"


def test_tiles_are_the_model_s_patches_row_by_row() -> None:
    label = np.arange(1, 7, dtype=np.uint8).reshape(2, 3)
    image = np.kron(np.vstack([label, label[:1]]), np.ones((8, 8), np.uint8))
    patches_LP = patchify(torch.from_numpy(image)[None, None].float(), 8)[0]
    assert probe.classes_of(image, 3) == patches_LP.mean(1).int().tolist() == [1, 2, 3, 4, 5, 6, 1, 2, 3]
    image[8:, :], image[:3, :3] = 0, 2
    assert probe.classes_of(image, 3) == [1, 2, 3, *[None] * 6]
    assert probe.classes_of(image, 1) == [2]


@pytest.mark.parametrize(("unit", "each"), [("chip", 1), ("patch", 36)])
def test_every_unit_has_the_features_of_its_chip(tmp_path: Path, unit: str, each: int) -> None:
    """An encoder that never learned is its own untrained one; means of tiles average to those of the chip."""
    write_pairs(str(tmp_path), shards=(("train", 5),), classes=3)
    torch.manual_seed(tiny_run.RUN.seed)
    nothing = Provenance(
        objective="croma", origin="", recipe={}, versions={}, step=0, samples=0, data=None, normalisation={}
    )
    encoder = Encoder(run=tiny_run.RUN, module=tiny_run.RUN.module().eval(), known=nothing)
    units = probe.looked_at(encoder, tmp_path, unit, places.boxes(AREAS))
    assert units.classes == [number % 3 or None for number in range(5) for _ in range(each)]
    assert units.places.tolist() == ["b"] * 5 * each
    assert not units.west.any()
    assert torch.equal(units.features[TRAINED], units.features[RANDOM])
    chips = probe.looked_at(encoder, tmp_path, "chip", places.boxes(AREAS)).features[BANDS]
    averaged = units.features[BANDS].unflatten(0, (5, each)).mean(1)
    means = [0, 1, *range(4, 16)]  # of S1, then deviations of S1, then means of S2
    torch.testing.assert_close(averaged[:, means], chips[:, means], atol=1e-5, rtol=1e-5)


def test_the_recipe_reads_whole_chips_of_that_size() -> None:
    asked = probe.arguments().parse_args(["--catalog", "c", "--out", "o", "--steps", "7"])
    run = probe.recipe(asked, 3)
    assert (run.stream.image_px, run.model.image_px, run.tokens, run.steps, run.seed) == (40, 40, 25, 7, 3)
