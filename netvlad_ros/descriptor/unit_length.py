# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Unit length, exact for zeros and in every precision."""

from __future__ import annotations

import torch
from torch import Tensor

# Of the published definition; it underflows to 0 in fp16, hence float32 below.
EPS = 1e-12


def unit(x: Tensor, dim: int) -> Tensor:
    """Return ``x / sqrt(sum(x^2) + 1e-12)`` along ``dim``: float32 or better, zeros stay zeros."""
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    return x * torch.rsqrt(x.square().sum(dim, keepdim=True) + EPS)
