"""Fixtures of the training tests: small data sets, and a fresh Accelerate."""

from collections.abc import Callable, Iterator

import pytest
from tiny_pairs import make_sample, write_pairs, write_stacks

from pipeline.sample import PairSample
from pipeline.store import Store


@pytest.fixture(scope="session")
def sample_of() -> Callable[[int, int], PairSample]:
    """Sample of a number and a chip size."""
    return make_sample


@pytest.fixture(scope="session")
def pairs_at() -> Callable[..., Store]:
    """Writes a data set of 25 train samples in four shards at a URL."""
    return write_pairs


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A data set of 24 px chips on disk; not to be changed."""
    return write_pairs(str(tmp_path_factory.mktemp("pairs") / "data"))


@pytest.fixture(scope="session")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A data set of stacks of four dates and 24 px on disk; not to be changed."""
    return write_stacks(str(tmp_path_factory.mktemp("stacks") / "data"))


@pytest.fixture(autouse=True)
def _fresh_accelerate() -> Iterator[None]:
    """Accelerate's state is global, and so is the number of torch's threads, on which the last bits depend."""
    import sys

    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    yield
    if before is not None:
        torch.set_num_threads(before)
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
