"""What two ranks saved in shards is there to the bit at one rank, at two, and in a plain module; damage is noticed. Run
as a script, this file is one rank."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import harness
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pipeline.errors import ContractError, PretrainError, SourceError
from pipeline.store import Store
from train import sharded_checkpoint
from train.checkpoint import COMMIT_NAME, STATE_NAME
from train.models.croma import Croma, CromaConfig
from train.optim import OptimConfig, adamw, load_optimizer, optimizer_tensors, set_lr
from train.sharded_checkpoint import MODEL, OPTIM, Objects
from train.sharding import cut, mesh_of, shard

pytestmark = [pytest.mark.train, pytest.mark.slow]
RANKS, PX = 2, 16
OTHERS = {STATE_NAME: b'{"step":2}'}
FILES = {
    *(f"{part}-{rank:05d}-of-00002.safetensors" for part in (MODEL, OPTIM) for rank in range(RANKS)),
    *(f"{part}-whole.safetensors" for part in (MODEL, OPTIM)),
    *(f"{part}.json" for part in (MODEL, OPTIM)),
    STATE_NAME,
}


def build(seed: int, *, width: int = 16) -> Croma:
    torch.manual_seed(seed)
    # Of the mask token the second rank holds nothing.
    return Croma(
        CromaConfig(encoder_dim=width, depth=2, heads=2, patch=4, image_px=PX, decoder_dim=12, decoder_heads=3)
    )


def optimizer_of(module: nn.Module) -> torch.optim.AdamW:
    optimizer = adamw(module, OptimConfig(base_lr=1.0))
    set_lr(optimizer, 1e-2)
    return optimizer


def step(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    s1, s2 = (torch.rand(4, bands, PX, PX, generator=draw) for bands in (2, 12))
    noise_s1, noise_s2 = (torch.rand(4, 16, generator=draw) for _ in range(2))
    optimizer.zero_grad(set_to_none=True)
    module(s1, s2, noise_s1_BL=noise_s1, noise_s2_BL=noise_s2).total.backward()
    optimizer.step()


def trained(*, seed: int, in_shards: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
    module = build(seed)
    if in_shards:
        shard(module, mesh=mesh_of(torch.device("cpu")))
    optimizer = optimizer_of(module)
    for number in range(2):
        step(module, optimizer, number)
    return module, optimizer


def fresh(*, in_shards: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
    module = build(9)
    if in_shards:
        shard(module, mesh=mesh_of(torch.device("cpu")))
    return module, optimizer_of(module)


def everything(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {f"model/{name}": value for name, value in module.state_dict().items()}
    tensors |= optimizer_tensors(optimizer, module)
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in tensors.items()}


def at(folder: Path, name: str) -> Store:
    return Store.at(str(folder / name))


def _one_rank(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    module, optimizer = trained(seed=1, in_shards=True)
    sharded_checkpoint.save(at(folder, "two"), module=module, optimizer=optimizer, others=OTHERS)
    _keep(everything(module, optimizer), folder / f"two-was-{rank}.safetensors")
    dist.barrier()
    for name in ("two", "one"):
        again, its_optimizer = fresh(in_shards=True)
        sharded_checkpoint.load(at(folder, name), module=again, optimizer=its_optimizer)
        _keep(everything(again, its_optimizer), folder / f"{name}-at-two-{rank}.safetensors")
        if name == "two":
            step(again, its_optimizer, 2)
            step(module, optimizer, 2)
            _keep(everything(again, its_optimizer), folder / f"resumed-{rank}.safetensors")
            _keep(everything(module, optimizer), folder / f"undisturbed-{rank}.safetensors")
    again, its_optimizer = _from_whole(at(folder, "one"))
    _keep(everything(again, its_optimizer), folder / f"one-whole-at-two-{rank}.safetensors")
    (folder / f"told-{rank}.json").write_text(json.dumps(_failures(rank, folder)))
    dist.destroy_process_group()


def _from_whole(store: Store) -> tuple[nn.Module, torch.optim.Optimizer]:
    """What a job does that reads a checkpoint before it builds the module."""
    model, moments = (sharded_checkpoint.read(store, part) for part in (MODEL, OPTIM))
    module = build(9)
    module.load_state_dict(model)
    shard(module, mesh=mesh_of(torch.device("cpu")))
    optimizer = optimizer_of(module)
    load_optimizer(optimizer, module, cut(moments, module))
    for parameter, state in optimizer.state.items():
        assert isinstance(state["exp_avg_sq"], DTensor) == isinstance(parameter, DTensor)
    return module, optimizer


def _keep(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


def _failures(rank: int, folder: Path) -> list[str]:
    """What each rank is told of what one of them meets."""
    if rank == 0:
        for name in ("flipped", "unwritten"):
            shutil.copytree(folder / "two", folder / name)
        flip(folder / "flipped" / "model-00001-of-00002.safetensors")
    dist.barrier()
    module, optimizer = fresh(in_shards=True)
    larger = build(9, width=32)
    shard(larger, mesh=mesh_of(torch.device("cpu")))
    told = [
        _error_of(lambda: sharded_checkpoint.load(at(folder, "never"), module=module)),
        _error_of(lambda: sharded_checkpoint.load(at(folder, "flipped"), module=module)),
        _error_of(lambda: sharded_checkpoint.load(at(folder, "two"), module=larger)),
        _error_of(lambda: sharded_checkpoint.load(at(folder, "two"), module=module.s1_encoder)),
    ]
    step(module, optimizer, 0)
    if rank == 1:
        Store.publish = _full
    saving = lambda: sharded_checkpoint.save(  # noqa: E731
        at(folder, "unwritten"), module=module, optimizer=optimizer, others=OTHERS
    )
    return [*told, _error_of(saving)]


def _error_of(action: Callable[[], None]) -> str:
    try:
        action()
    except (FileNotFoundError, PretrainError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def _full(store: Store, name: str, data: bytes) -> None:
    raise SourceError(f"{name}: the disk is full.")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    module, optimizer = trained(seed=2, in_shards=False)
    sharded_checkpoint.save(at(folder, "one"), module=module, optimizer=optimizer, others=OTHERS)
    _keep(everything(module, optimizer), folder / "one-was-0.safetensors")
    harness.run_ranks(__file__, folder)
    return folder


def check_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("name", ["two", "one"])
def test_two_ranks_read_what_two_and_one_wrote(name: str, ranks: Path) -> None:
    expected = load_file(ranks / f"{name}-was-0.safetensors")
    for rank in range(RANKS):
        check_equal(load_file(ranks / f"{name}-at-two-{rank}.safetensors"), expected)


def test_two_ranks_cut_what_they_read_whole(ranks: Path) -> None:
    expected = load_file(ranks / "one-was-0.safetensors")
    for rank in range(RANKS):
        check_equal(load_file(ranks / f"one-whole-at-two-{rank}.safetensors"), expected)


@pytest.mark.parametrize("name", ["two", "one"])
def test_one_process_reads_what_two_and_one_wrote(name: str, ranks: Path) -> None:
    expected = load_file(ranks / f"{name}-was-0.safetensors")
    module, optimizer = fresh(in_shards=False)
    sharded_checkpoint.load(at(ranks, name), module=module, optimizer=optimizer)
    check_equal(everything(module, optimizer), expected)
    both = {f"model/{key}": value for key, value in sharded_checkpoint.read(at(ranks, name), MODEL).items()}
    check_equal(both | sharded_checkpoint.read(at(ranks, name), OPTIM), expected)
    assert Objects(at(ranks, name)).read(STATE_NAME) == OTHERS[STATE_NAME]


def test_resumed_shards_go_on_to_the_bit(ranks: Path) -> None:
    for rank in range(RANKS):
        resumed, undisturbed = (load_file(ranks / f"{name}-{rank}.safetensors") for name in ("resumed", "undisturbed"))
        check_equal(resumed, undisturbed)


def test_what_one_rank_meets_both_are_told(ranks: Path) -> None:
    one, two = (json.loads((ranks / f"told-{rank}.json").read_text()) for rank in range(RANKS))
    assert one == two
    never, flipped, larger, smaller, unwritten = one
    assert never.startswith("FileNotFoundError: ")
    assert flipped.startswith("ContractError: ")
    assert "model-00001-of-00002.safetensors" in flipped
    assert larger.startswith("StreamError: ")
    assert "Size mismatch" in larger
    assert smaller.startswith("StreamError: ")
    assert "only in the checkpoint's model" in smaller
    assert unwritten.startswith("SourceError: ")
    with pytest.raises(FileNotFoundError):
        sharded_checkpoint.read(at(ranks, "unwritten"), MODEL)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_every_damaged_file_is_noticed(damage: str, ranks: Path, tmp_path: Path) -> None:
    for name in FILES:
        folder = tmp_path / name
        shutil.copytree(ranks / "two", folder)
        if damage == "flip":
            flip(folder / name)
        elif damage == "cut":
            (folder / name).write_bytes((folder / name).read_bytes()[:-1])
        else:
            (folder / name).unlink()
        with pytest.raises(ContractError, match=name):
            _read_all(Store.at(str(folder)))


def _read_all(store: Store) -> None:
    module, optimizer = fresh(in_shards=False)
    sharded_checkpoint.load(store, module=module, optimizer=optimizer)
    Objects(store).read(STATE_NAME)


def test_a_flipped_bit_of_the_proof_is_noticed(ranks: Path, tmp_path: Path) -> None:
    shutil.copytree(ranks / "two", tmp_path / "two")
    flip(tmp_path / "two" / COMMIT_NAME)
    with pytest.raises(ContractError):
        _read_all(at(tmp_path, "two"))


def test_no_file_is_a_pickle(ranks: Path) -> None:
    names = {path.name for path in (ranks / "two").iterdir()}
    assert names == FILES | {COMMIT_NAME}
    for name in names:
        head = (ranks / "two" / name).read_bytes()[:9]
        assert not head.startswith((b"PK\x03\x04", b"\x80")), name
        assert head[8:] == b"{" if name.endswith(".safetensors") else head[:1] == b"{", name


def test_each_rank_wrote_its_half(ranks: Path) -> None:
    one, two = ((ranks / "two" / f"optim-0000{rank}-of-00002.safetensors").stat().st_size for rank in range(RANKS))
    assert one == pytest.approx(two, rel=0.1)
    assert (ranks / "two" / "optim-whole.safetensors").stat().st_size < one / 2


def test_an_object_store_holds_it_too() -> None:
    store = Store.at("memory://sharded-checkpoint/step-00000002")
    module, optimizer = trained(seed=3, in_shards=False)
    sharded_checkpoint.save(store, module=module, optimizer=optimizer, others=OTHERS)
    assert Objects(store).sharded
    again, its_optimizer = fresh(in_shards=False)
    sharded_checkpoint.load(store, module=again, optimizer=its_optimizer)
    check_equal(everything(again, its_optimizer), everything(module, optimizer))


if __name__ == "__main__":
    _one_rank(int(sys.argv[1]), Path(sys.argv[2]))
