# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Id, stamp, session and camera of every row in memory; turns an Exclusion into row ranges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
import itertools
from typing import Optional

import numpy as np
import numpy.typing as npt

from netvlad_ros.keyframes.records import Entry, Exclusion

Range = tuple[int, int]
_FEW_IDS = 64  # cut out of the ranges one by one; more of them become a mask


@dataclass(frozen=True)
class Selection:
    """The rows that a search may return: inside ``ranges`` and, if there is a mask, set in it.

    :param ranges: sorted, disjoint, half open.
    :param mask: (count,) bool, or None if the ranges say all.
    """

    ranges: list[Range]
    mask: Optional[npt.NDArray[np.bool_]] = None


@dataclass
class _Run:
    """Consecutive rows of one session whose stamps rise: one binary search finds a time."""

    session: str
    start: int
    end: int


class Columns:
    """Growing columns by row. The writer appends; readers see rows below the count they took."""

    def __init__(self) -> None:
        self.count = 0
        self.ids = np.empty(1024, np.int64)
        self.stamps_ns = np.empty(1024, np.int64)
        self._cameras = np.empty(1024, np.int32)
        self._camera_numbers: dict[str, int] = {}
        self._runs: list[_Run] = []
        self._hidden: list[Range] = []

    def append(self, entry: Entry) -> None:
        """Add a row; ids rise."""
        row = self.count
        if row == len(self.ids):
            for name in ('ids', 'stamps_ns', '_cameras'):
                old = getattr(self, name)
                new = np.empty(2 * row, old.dtype)
                new[:row] = old
                setattr(self, name, new)
        self.ids[row] = entry.keyframe_id
        self.stamps_ns[row] = entry.stamp_ns
        camera = self._camera_numbers.setdefault(entry.camera, len(self._camera_numbers))
        self._cameras[row] = camera
        run = self._runs[-1] if self._runs else None
        rises = bool(row) and self.stamps_ns[row - 1] <= entry.stamp_ns
        if run and rises and run.session == entry.session:
            run.end = row + 1
        else:
            self._runs.append(_Run(entry.session, row, row + 1))
        self.count = row + 1

    def load(
        self, chunks: Iterable[npt.NDArray[np.int64]], sessions: dict[int, str],
        cameras: dict[int, str],
    ) -> None:
        """Take in rows (n, 4) of id, stamp, session number and camera number, by rising id."""
        table = np.concatenate([np.empty((0, 4), np.int64), *chunks])
        self.count = len(table)
        room = max(1024, 2 * self.count)
        for name, values in (('ids', table[:, 0]), ('stamps_ns', table[:, 1])):
            column = np.empty(room, np.int64)
            column[: self.count] = values
            setattr(self, name, column)
        self._cameras = np.empty(room, np.int32)
        for camera in np.unique(table[:, 3]).tolist():
            known = self._camera_numbers
            number = known.setdefault(cameras[camera], len(known))
            self._cameras[: self.count][table[:, 3] == camera] = number
        breaks = (np.diff(table[:, 2]) != 0) | (np.diff(table[:, 1]) < 0)
        edges = [0, *(np.flatnonzero(breaks) + 1).tolist(), self.count]
        self._runs = [
            _Run(sessions[int(table[start, 2])], start, end)
            for start, end in itertools.pairwise(edges) if start < end
        ]

    def hide(self, rows: list[int]) -> None:
        """Leave rows out of every selection."""
        self._hidden = [(row, row + 1) for row in rows]

    def row(self, keyframe_id: int) -> Optional[int]:
        """Return the row of a keyframe, None if it is not in the map."""
        row = int(np.searchsorted(self.ids[: self.count], keyframe_id))
        return row if row < self.count and self.ids[row] == keyframe_id else None

    def select(self, exclude: Optional[Exclusion]) -> Selection:
        """Return the rows that an exclusion leaves."""
        count = self.count
        if exclude is None:
            return Selection(_remaining(count, self._hidden))
        cuts = self._hidden + [self._cut_of_run(run, exclude) for run in list(self._runs)]
        mask = None
        if exclude.camera is not None and exclude.camera in self._camera_numbers:
            mask = self._cameras[:count] != self._camera_numbers[exclude.camera]
        rows = [row for i in exclude.ids if (row := self.row(i)) is not None]
        if len(rows) <= _FEW_IDS:
            cuts += [(row, row + 1) for row in rows]
        else:
            mask = np.ones(count, bool) if mask is None else mask
            mask[[row for row in rows if row < count]] = False
        return Selection(_remaining(count, cuts), mask)

    def _cut_of_run(self, run: _Run, exclude: Exclusion) -> Range:
        if run.session == exclude.whole_session:
            return run.start, run.end
        if run.session == exclude.session and exclude.newer_than_ns is not None:
            stamps = self.stamps_ns[run.start : run.end]
            first = int(np.searchsorted(stamps, exclude.newer_than_ns, side='right'))
            return run.start + first, run.end
        return run.start, run.start


def _remaining(count: int, cuts: list[Range]) -> list[Range]:
    ranges, start = [], 0
    for low, high in sorted(cuts):
        if low == high:
            continue
        if start < low:
            ranges.append((start, min(low, count)))
        start = max(start, high)
    if start < count:
        ranges.append((start, count))
    return [(low, high) for low, high in ranges if low < high]
