# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The weakly supervised triplet ranking loss of the paper (equation 7), and its ports' form."""

from __future__ import annotations

import torch
from torch import Tensor

# Keeps the gradient of the square root finite where two descriptors are equal.
_EPS = 1e-12


def tuple_losses(
    query: Tensor, positive: Tensor, negatives: Tensor, margin: float, squared: bool = True
) -> Tensor:
    """Return (n,) ``max(d(q, p) + margin - d(q, n), 0)`` of one tuple.

    :param query: (D,) descriptor.
    :param positive: (D,) descriptor of the best positive.
    :param negatives: (n, D) descriptors.
    """
    to_positive = (query - positive).square().sum()
    to_negatives = (query - negatives).square().sum(dim=1)
    if not squared:
        to_positive = (to_positive + _EPS).sqrt()
        to_negatives = (to_negatives + _EPS).sqrt()
    return (to_positive + margin - to_negatives).clamp(min=0)


def divisor(losses: Tensor, divide_by: str) -> int:
    """Return what one tuple adds to the number that the sum of a batch is divided by."""
    return int((losses > 0).sum()) if divide_by == 'violating' else int(torch.numel(losses))
