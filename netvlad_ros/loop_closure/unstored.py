# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The closures of a run in a read-only map, for a backend that asks for them later."""

from __future__ import annotations

from collections.abc import Sequence
import threading

from netvlad_ros.types import LoopClosure

# About 1 kB each.
CLOSURES_KEPT = 50_000


class UnstoredClosures:
    """The latest state of each closure, the oldest forgotten past ``CLOSURES_KEPT``.

    Both threads of the detector add and the node's executor reads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closures: dict[tuple[str, int, int], tuple[LoopClosure, str]] = {}

    def add(self, closures: Sequence[LoopClosure], optical_frame_id: str) -> None:
        """Keep closures of one query, in place of earlier states of them."""
        with self._lock:
            for closure in closures:
                query = closure.query
                key = query.session, query.stamp_ns, closure.match.id
                self._closures[key] = closure, optical_frame_id
            while len(self._closures) > CLOSURES_KEPT:
                del self._closures[next(iter(self._closures))]

    def since(self, stamp_ns: int) -> list[tuple[LoopClosure, str]]:
        """Return closures whose query is not older than a stamp, each with its optical frame."""
        with self._lock:
            kept = list(self._closures.values())
        return [entry for entry in kept if entry[0].query.stamp_ns >= stamp_ns]
