"""The files of infra/accelerate say what `accelerate launch` reads, and what they ask for happens or is refused."""

import os
from pathlib import Path
from typing import Any

import harness
import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from tiny_pairs import write_pairs

from pipeline.errors import UsageError
from train import plugins

pytestmark = pytest.mark.train
FILES = sorted((harness.ROOT / "infra" / "accelerate").glob("*.yaml"))
ELSEWHERE = {"compute_environment", "distributed_type", "use_cpu"}
"""Keys that become flags of other names."""


def _launched(file: Path, *flags: str) -> Any:
    """The launcher's flags with this file."""
    parser = launch_command_parser()
    asked, _, _ = _validate_launch_command(parser.parse_args(["--config_file", str(file), *flags, "train/croma.py"]))
    return asked


def test_there_is_a_file_for_each_size() -> None:
    sizes = {file.stem: load_config_from_file(str(file)) for file in FILES}
    assert set(sizes) == {"cpu-one", "cpu-two-ranks", "gpu-one", "gpu-one-node", "gpu-nodes", "fsdp2"}
    assert {name for name, size in sizes.items() if size.num_processes == 1} == {"cpu-one", "gpu-one"}
    assert {name for name, size in sizes.items() if size.num_machines > 1} == {"gpu-nodes"}
    assert {name for name, size in sizes.items() if size.use_cpu} == {"cpu-one", "cpu-two-ranks"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_value_reaches_the_launcher(file: Path) -> None:
    written = yaml.safe_load(file.read_text())
    asked = vars(_launched(file))
    flat = {**written, **written.pop("fsdp_config", {})}
    flat.pop("fsdp_config", None)
    for name, value in flat.items():
        if name not in ELSEWHERE:
            assert asked[name] == value, f"{name} of {file.name} is {asked[name]} at the launcher"
    assert asked["multi_gpu"] == (written["distributed_type"] == "MULTI_GPU"), "ranks would train alone"
    assert asked["use_fsdp"] == (written["distributed_type"] == "FSDP")


def test_a_key_that_accelerate_does_not_know_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(FILES[0].read_text() + "\nnum_nodes: 3\n")
    with pytest.raises(ValueError, match="num_nodes"):
        load_config_from_file(str(file))


def test_fsdp_is_taken_from_accelerate_once() -> None:
    environment = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "false"}
    assert plugins.take_fsdp(environment)
    assert not plugins.take_fsdp(environment)
    plugins.refuse(environment)


@pytest.mark.parametrize(
    ("name", "value"),
    [("FSDP_VERSION", "1"), ("FSDP_OFFLOAD_PARAMS", "true"), ("FSDP_ACTIVATION_CHECKPOINTING", "true")],
)
def test_another_kind_of_fsdp_is_refused(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"{name.lower()}: {value}"):
        plugins.take_fsdp({"ACCELERATE_USE_FSDP": "true", name: value})


@pytest.mark.parametrize("name", ["ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_USE_FSDP"])
def test_what_nobody_does_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="which this command does not do"):
        plugins.refuse({name: "true"})


@pytest.mark.slow
def test_the_file_for_fsdp_shards(tmp_path: Path) -> None:
    data, out = str(write_pairs(str(tmp_path / "data"), chip_px=120).url), tmp_path / "run"
    launch = (
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        "infra/accelerate/fsdp2.yaml",
        "--num_processes",
        "2",
    )
    flags = ("--recipe", "tiny", "--data", data, "--out", str(out), "--steps", "1")
    harness.run(*launch, "train/croma.py", *flags, env={"PYTHONPATH": os.environ.get("PYTHONPATH", "")})
    names = {path.name for path in (out / "step-00000001").iterdir()}
    assert {"model-00000-of-00002.safetensors", "model-00001-of-00002.safetensors"} <= names
