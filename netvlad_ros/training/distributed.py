# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The processes that ``torchrun`` started, or this one alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
import os
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn

from netvlad_ros.training.places import IntArray

# The others wait while the first one decodes images or runs the frozen layers: hours.
_LONGEST_WAIT = timedelta(days=2)


class Workers:
    """One process among ``count``; every method is a no-op for one.

    :param rank: number of this process.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    @classmethod
    def from_environment(cls) -> Workers:
        """Join the processes of ``torchrun``, by NCCL on CUDA and by Gloo elsewhere."""
        if 'RANK' not in os.environ or 'WORLD_SIZE' not in os.environ:
            return cls()
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', '0')))
        distributed.init_process_group(
            'nccl' if torch.cuda.is_available() else 'gloo', timeout=_LONGEST_WAIT
        )
        return cls.joined()

    @classmethod
    def joined(cls) -> Workers:
        """Return the processes that ``from_environment`` joined, this one alone if it did not."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def is_first(self) -> bool:
        """Return whether this process writes the files."""
        return self.rank == 0

    def share(self, count: int) -> IntArray:
        """Return the rows of ``count`` that this process computes."""
        return np.array_split(np.arange(count, dtype=np.int64), self.count)[self.rank]

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            distributed.barrier()

    def make_once(self, file: Path, make: Callable[[], None]) -> None:
        """Let the first process make a file that is not there, and the others wait for it."""
        if self.is_first and not file.is_file():
            make()
        self.barrier()

    def sum(self, value: float) -> float:
        """Return the sum of a number over all processes."""
        if self.count == 1:
            return value
        total = torch.tensor([value], dtype=torch.float64, device=self._device())
        distributed.all_reduce(total)
        return float(total)

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes."""
        if self.count > 1:
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                distributed.all_reduce(parameter.grad)

    def close(self) -> None:
        """Leave the processes, all at a time: one that goes early may end another's call."""
        if self.count > 1:
            distributed.barrier()
            distributed.destroy_process_group()

    @staticmethod
    def _device() -> str:
        return 'cuda' if torch.cuda.is_available() else 'cpu'
