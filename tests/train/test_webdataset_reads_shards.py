"""webdataset's own reader is the oracle of the shards: it opens them with nothing but its defaults."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pipeline import record
from pipeline.codec import Codec, encode, specs
from pipeline.sample import PairSample, arrays
from pipeline.shard import pack

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # webdataset leaves closing to the collector
]
webdataset = pytest.importorskip("webdataset", reason="needs the train extra")


@pytest.fixture
def pairs(make_pair: Callable[..., PairSample]) -> list[PairSample]:
    return [make_pair(f"32633-r00123-c0000{i}-20230610t074621-00000000", seed=i) for i in range(3)]


def _shard(folder: Path, pairs: list[PairSample], codec: Codec) -> str:
    path = folder / "u00000-0000.tar"
    path.write_bytes(pack([(pair.key, encode(pair, codec)) for pair in pairs])[0])
    return str(path)


def _same(found: list[dict[str, Any]], pairs: list[PairSample], codec: Codec) -> None:
    assert [sample["__key__"] for sample in found] == [pair.key for pair in pairs]
    for sample, pair in zip(found, pairs, strict=True):
        assert {name for name in sample if not name.startswith("__")} == {f"{n}.{codec}" for n in arrays(pair)} | {
            "json"
        }
        for name, array in arrays(pair).items():
            assert sample[f"{name}.{codec}"].dtype == array.dtype
            assert_array_equal(sample[f"{name}.{codec}"], array)
        assert sample["json"] == record.to_json(pair.meta)


def test_npy_needs_no_decoder(tmp_path: Path, pairs: list[PairSample]) -> None:
    _same(list(webdataset.WebDataset(_shard(tmp_path, pairs, "npy"), shardshuffle=False).decode()), pairs, "npy")


def test_b2_needs_three_lines(tmp_path: Path, pairs: list[PairSample]) -> None:
    shapes = {f".{spec.name}.b2": (spec.dtype, spec.shape) for spec in specs(pairs[0])}

    def decode_b2(key: str, data: bytes) -> np.ndarray | None:
        if key in shapes:
            return np.frombuffer(blosc2.decompress2(data), shapes[key][0]).reshape(shapes[key][1])
        return None

    shard = webdataset.WebDataset(_shard(tmp_path, pairs, "b2"), shardshuffle=False)
    _same(list(shard.decode(decode_b2)), pairs, "b2")


def test_the_lines_in_the_formats_description_work(tmp_path: Path, make_pair: Callable[..., PairSample]) -> None:
    text = (Path(__file__).parents[2] / "pipeline" / "FORMAT.md").read_text()
    lines = re.search(r"```python\n(def decode_b2.*?)```", text, re.DOTALL)
    assert lines
    pair = replace(make_pair(size=120), label=None)
    path = _shard(tmp_path, [pair], "b2")
    names: dict[str, Any] = {"numpy": np, "blosc2": blosc2, "webdataset": webdataset}
    exec(lines[1].replace("OUT/shards/train/u00000-0000.tar", path), names)
    (sample,) = names["samples"]
    for name in ("s2", "s1"):
        assert not isinstance(sample[f"{name}.b2"], bytes), "the decoder did not know its member"
        assert_array_equal(sample[f"{name}.b2"], arrays(pair)[name])
