"""Fine-tune a segmentation head on a frozen CROMA: land cover of each patch from its token, one linear layer.

python train/embed.py --run runs/demo/croma --data runs/demo/data --sensor joint --pooling tokens --out runs/demo/tokens
python examples/segment.py --tokens runs/demo/tokens --data runs/demo/data
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import webdataset
from numpy.typing import NDArray
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from read_shards import samples


def tokens_of(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Tokens of each sample by its key: (N, D), the patches of a chip row by row."""
    shards = sorted(map(str, folder.glob("*.tar")))
    read = webdataset.WebDataset(shards, shardshuffle=False).decode()
    return {sample["__key__"]: sample["feature.npy"] for sample in read}


def patch_classes(label: NDArray[np.uint8], side: int) -> NDArray[np.int64]:
    """The most frequent class of each of `side` x `side` patches, row by row; 0: unknown."""
    px = label.shape[0] // side
    patches = label[: side * px, : side * px].reshape(side, px, side, px).swapaxes(1, 2).reshape(side * side, -1)
    return np.array([np.bincount(patch).argmax() for patch in patches])


def pairs(data: Path, split: str, tokens: dict[str, NDArray[np.float32]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (N, D) and classes (N,) of all patches of a split whose class is known."""
    x, y = [], []
    for sample in samples(data, split):
        feature = tokens[sample["__key__"]]
        x.append(feature)
        y.append(patch_classes(sample["label.b2"], round(len(feature) ** 0.5)))
    known = np.concatenate(y) > 0
    return torch.from_numpy(np.concatenate(x)[known]), torch.from_numpy(np.concatenate(y)[known])


def fit(x: torch.Tensor, y: torch.Tensor, classes: int, steps: int) -> nn.Module:
    """A linear layer behind a normalisation, full batches."""
    torch.manual_seed(0)
    head = nn.Sequential(nn.BatchNorm1d(x.shape[1]), nn.Linear(x.shape[1], classes))
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.05, weight_decay=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(x), y).backward()
        optimizer.step()
    return head.eval()


def scores(predicted: torch.Tensor, truth: torch.Tensor, classes: int) -> tuple[float, float]:
    """Accuracy, and mean intersection over union of the classes that occur."""
    both = torch.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes).double()
    union = both.sum(0) + both.sum(1) - both.diag()
    present = both.sum(1) > 0
    return float(both.diag().sum() / both.sum()), float((both.diag() / union)[present].mean())


def main() -> None:
    """Fit on `train`, score on `val`, beside the answer that knows only the most frequent class."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=Path, required=True, help="what train/embed.py --pooling tokens wrote")
    parser.add_argument("--data", type=Path, required=True, help="the data set, with labels")
    parser.add_argument("--steps", type=int, default=200)
    asked = parser.parse_args()
    if not any(asked.tokens.glob("*.tar")):
        raise SystemExit(f"{asked.tokens} holds no tokens: write them with train/embed.py --pooling tokens")
    tokens = tokens_of(asked.tokens)
    (x, y), (val_x, val_y) = (pairs(asked.data, split, tokens) for split in ("train", "val"))
    classes = int(max(y.max(), val_y.max())) + 1
    head = fit(x, y, classes, asked.steps)
    with torch.no_grad():
        answers = {"head": head(val_x).argmax(1), "most frequent class": torch.full_like(val_y, int(y.mode().values))}
    for name, answer in answers.items():
        accuracy, overlap = scores(answer, val_y, classes)
        print(f"{name:<20} accuracy {accuracy:.3f}  mean IoU {overlap:.3f}  ({len(val_y)} patches)")


if __name__ == "__main__":
    main()
