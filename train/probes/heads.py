"""Probes that learn a head on frozen features: logistic regression, and one hidden layer.

Features are standardised with the training part's mean and deviation. One class per sample: softmax; several: sigmoids.

Axes: N training samples, M test samples, D width, C classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.probes.metrics import accuracy, mean_average_precision

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""L2 penalties that the linear probe chooses from, on a fifth of the training part."""
_HIDDEN, _EPOCHS, _RATE, _ROWS = 2048, 100, 1e-3, 256


def score(logits_MC: Tensor, targets: Tensor) -> float:
    """Accuracy of (M,) classes, or mean average precision of (M, C) ones."""
    if targets.ndim == 1:
        return accuracy(logits_MC.argmax(dim=1), targets)
    return mean_average_precision(logits_MC, targets)


def linear_probe(train_ND: Tensor, targets: Tensor, test_MD: Tensor, *, classes: int, seed: int) -> Tensor:
    """Logits (M, C) of a logistic regression; its penalty is chosen by the loss on a fifth of the training part."""
    train_ND, test_MD = standardised(train_ND, test_MD)
    order = torch.randperm(len(train_ND), generator=torch.Generator().manual_seed(seed))
    held, kept = order.tensor_split([len(order) // 5])
    penalty = PENALTIES[0]
    if len(held) and len(kept):
        # By the loss: neither accuracy nor average precision sees that weights are shrunk to nearly nothing.
        found = [
            (float(_loss(_logistic(train_ND[kept], targets[kept], classes, one)(train_ND[held]), targets[held])), one)
            for one in PENALTIES
        ]
        penalty = min(found)[1]
    return _logistic(train_ND, targets, classes, penalty)(test_MD)


def mlp_probe(train_ND: Tensor, targets: Tensor, test_MD: Tensor, *, classes: int, seed: int) -> Tensor:
    """Logits (M, C) of a network with one hidden layer of 2,048, after 100 epochs of AdamW."""
    train_ND, test_MD = standardised(train_ND, test_MD)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = nn.Sequential(nn.Linear(train_ND.shape[1], _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, classes))
        optimizer = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=0.05)
        for _ in range(_EPOCHS):
            for rows in torch.split(torch.randperm(len(train_ND)), _ROWS):
                optimizer.zero_grad()
                _loss(head(train_ND[rows]), targets[rows]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    with torch.no_grad():
        logits: Tensor = head(test_MD)
    return logits


def standardised(train_ND: Tensor, test_MD: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the training part's mean 0 and deviation 1; constant features become 0."""
    mean, std = train_ND.mean(dim=0), train_ND.std(dim=0, correction=0).clamp(min=1e-6)
    return (train_ND - mean) / std, (test_MD - mean) / std


def _logistic(train_ND: Tensor, targets: Tensor, classes: int, penalty: float) -> Callable[[Tensor], Tensor]:
    weight = torch.zeros(classes, train_ND.shape[1], requires_grad=True)
    offset = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, offset], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = _loss(functional.linear(train_ND, weight, offset), targets) + penalty * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return lambda features: functional.linear(features, weight.detach(), offset.detach())


def _loss(logits_NC: Tensor, targets: Tensor) -> Tensor:
    if targets.ndim == 1:
        return functional.cross_entropy(logits_NC, targets)
    return functional.binary_cross_entropy_with_logits(logits_NC, targets.float())
