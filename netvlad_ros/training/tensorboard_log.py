# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Curves of a training run for TensorBoard, where that is installed."""

from __future__ import annotations

from collections.abc import Mapping
import logging
from pathlib import Path
from typing import Any, Optional

_log = logging.getLogger(__name__)

FOLDER = 'tensorboard'

# A killed run loses at most this much of its curves.
_FLUSH_S = 10


class TensorBoardLog:
    """Scalars by step in the event files of a run; opened at the first value.

    Without the package ``tensorboard`` nothing is written, and a warning says so once.

    :param run: the run's folder; the files go into its subfolder ``tensorboard``.
    :param is_active: False for all but the first of several processes.
    """

    def __init__(self, run: Path, is_active: bool = True) -> None:
        self.folder = run / FOLDER
        self._is_active = is_active
        self._first_step: Optional[int] = None
        self._writer: Any = None

    def continue_from(self, step: int) -> None:
        """Say that a resumed run computes this step and all later ones again."""
        self._first_step = step

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write values of one step."""
        if self._is_active and self._writer is None:
            self._open()
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()
            self._first_step, self._writer = None, None

    def _open(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._is_active = False
            _log.warning("no TensorBoard logs: 'pip install tensorboard' adds them")
            return
        self._writer = SummaryWriter(  # type: ignore[no-untyped-call]
            str(self.folder), purge_step=self._first_step, flush_secs=_FLUSH_S
        )
