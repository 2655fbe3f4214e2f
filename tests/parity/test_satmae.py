"""SatMAE against data that the published code produced: every tensor, and every number of the manifest.

One test per tensor and one per case of the manifest: what `satmae_golden` computes no value for fails.
"""

import re
from typing import Any

import pytest
import torch
from golden import golden, manifest, require, tensor_names
from torch import Tensor

pytestmark = pytest.mark.train
SET = "satmae"

# What the golden set gives to compute with, and what says where it is from.
_INPUT_TENSORS = re.compile(r".*(noise|imgs|timestamps|/extra/.*|raw_hwc|uint8_chw)")
_INPUT_FACTS = re.compile(
    r"versions/.*|.*/config/.*|formula/.*/(desc/.*|mask_ratio|base)|.*/cases/[^/]*/(spatial_mask|mask_ratio|same_mask|ids_given)"
    r"|group_training/(imgs|noise|initial_weights)|satmaepp/(base_weights|extra|img_4x|noise)|sincos2d_rows_for_large"
    r"|sentinel/(crop_ijhw|out|eval_input_size)"
)
_EXACT = re.compile(r".*(mask|ids_shuffle|ids_restore|uint8_hwc.*)|patchify")

# (relative to the largest magnitude) by the first pattern that fits: the tolerances of the golden folder's README.
_TOLERANCES = (
    (re.compile(r"formula_cases/.*vit_(base|large).*"), 2e-5),
    (re.compile(r"group_training/.*"), 2e-5),
    (re.compile(r".*/grad/.*"), 2e-5),
    (re.compile(r".*"), 3e-6),
)
_FACT_TOLERANCES = (
    (re.compile(r".*(lr_schedule|sentinel_|rgb_|lrs|lr_scale|weight_decay|norm_eps).*"), 1e-12),
    (re.compile(r".*_f64"), 1e-9),
    (re.compile(r".*(grad_norms|final_param_norms|group_training|vit_base|vit_large).*"), 2e-5),
    (re.compile(r".*"), 3e-6),
)


def _values() -> Any:
    import satmae_golden

    return satmae_golden


def _leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(path, value)]
    return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{path}/{key}".lstrip("/"))]


def _cases() -> list[str]:
    """Manifest paths, shortened to what belongs together."""
    if not tensor_names(SET):
        return []
    return sorted({_case(path) for path, _ in _leaves(manifest(SET)) if not _INPUT_FACTS.fullmatch(path)})


def _case(path: str) -> str:
    return "/".join(path.split("/")[:3])


@pytest.fixture(autouse=True)
def _present() -> None:
    require(SET)


def _without_key_bias(bias: Tensor) -> Tensor:
    """Query and value biases. A softmax does not see the keys' one: its gradient is rounding noise, and AdamW divides
    that by its own size, so that what it has become is no result of the training."""
    query, _, value = bias.chunk(3)
    return torch.cat((query, value))


def _tolerance(table: Any, name: str) -> float:
    return next(limit for pattern, limit in table if pattern.fullmatch(name))


@pytest.mark.parametrize(("file", "name"), [pytest.param(*pair, id="-".join(pair)) for pair in tensor_names(SET)])
def test_tensor(file: str, name: str) -> None:
    values, data = _values().tensors(file.partition("/")[2]), golden(file)
    if _INPUT_TENSORS.fullmatch(name):
        assert name in data.read, "an input that no value was computed from"
        return
    expected, found = data.tensors[name].double(), values[name].detach().double()
    if name.startswith("final/") and name.endswith("qkv.bias"):
        expected, found = _without_key_bias(expected), _without_key_bias(found)
    if _EXACT.fullmatch(name) or (file.endswith("_weights") and not name.endswith("embed")):
        assert torch.equal(found, expected)
        return
    atol = _tolerance(_TOLERANCES, f"{file.partition('/')[2]}/{name}") * expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("case", _cases())
def test_manifest(case: str) -> None:
    leaves = [(path, value) for path, value in _leaves(manifest(SET)) if _case(path) == case]
    checked = 0
    for path, expected in leaves:
        if not _INPUT_FACTS.fullmatch(path):
            _check(path, _values().facts()[path], expected)
            checked += 1
    assert checked


def _check(path: str, found: Any, expected: Any) -> None:
    if path.endswith("max_abs_pred_f32_minus_f64"):
        assert found < 4 * expected, path
        return
    if isinstance(expected, list) and expected and isinstance(expected[0], dict):
        for one, other in zip(found, expected, strict=True):
            assert one.keys() == other.keys()
            _check(path, torch.tensor(one["table"]), torch.tensor(other["table"]))
        return
    if isinstance(expected, str) or (isinstance(expected, list) and not isinstance(expected[0], float)):
        assert found == expected, path
        return
    limit = _tolerance(_FACT_TOLERANCES, path)
    torch.testing.assert_close(_number(found), _number(expected), rtol=limit, atol=limit, msg=lambda m: f"{path}: {m}")


def _number(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def test_our_layout_is_the_released_one() -> None:
    """No name too many either: the manifest's lists are whole."""
    facts = _values().facts()
    for variant, layout in manifest(SET)["weights_layout"].items():
        prefix = f"weights_layout/{variant}/"
        assert {path.removeprefix(prefix) for path in facts if path.startswith(prefix)} == set(layout)
