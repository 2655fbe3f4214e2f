"""What nobody can avoid: one thread that reads each sample with one `preadv` and decodes it into its place."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import blosc2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from meter import HEADER, Asked, Batch, Tars, serve


class Floor:
    """No checksum, no read-ahead, one batch of memory that is used again."""

    def __init__(self, asked: Asked):
        self._tars, self._draw = Tars(asked), np.random.default_rng(0)
        side = self._tars.side
        self._s2 = torch.empty(asked.batch, 12, side, side, dtype=torch.uint16)
        self._s1 = torch.empty(asked.batch, 2, side, side)
        self._fill = self._raw if asked.codec == "npy" else self._packed
        self._bytes = memoryview(bytearray(int(self._tars.size.sum(axis=1).max()) + 4096))
        self._gap = memoryview(bytearray(4096))

    def epoch(self) -> Iterator[Batch]:
        order, size = self._draw.permutation(len(self._tars)), len(self._s2)
        for first in range(0, len(order), size):
            ids = order[first : first + size]
            for row, sample in enumerate(ids.tolist()):
                self._fill(row, sample)
            yield torch.from_numpy(ids), self._s2[: len(ids)], self._s1[: len(ids)]

    def _packed(self, row: int, sample: int) -> None:
        (s2, s1), (s2_size, s1_size) = self._tars.offset[sample].tolist(), self._tars.size[sample].tolist()
        os.preadv(self._file(sample), [self._bytes[: s1 + s1_size - s2]], s2)
        blosc2.decompress2(self._bytes[:s2_size], dst=self._s2[row].numpy(), nthreads=1)
        blosc2.decompress2(self._bytes[s1 - s2 : s1 - s2 + s1_size], dst=self._s1[row].numpy(), nthreads=1)

    def _raw(self, row: int, sample: int) -> None:
        (s2, s1), (s2_size, _) = self._tars.offset[sample].tolist(), self._tars.size[sample].tolist()
        between = self._gap[HEADER : HEADER + s1 + HEADER - s2 - s2_size]
        parts = [self._gap[:HEADER], self._s2[row].numpy(), between, self._s1[row].numpy()]
        os.preadv(self._file(sample), parts, s2)

    def _file(self, sample: int) -> int:
        return self._tars._files[self._tars.shard[sample]]


if __name__ == "__main__":
    serve(Floor)
