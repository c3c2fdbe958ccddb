# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Times that can be compared on a machine that does other things as well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import time

_MIN_TURNS, _MAX_TURNS = 3, 50
# The first call of a turn meets the busily waiting threads of the engine before it.
_CALLS_A_TURN = 2
# A call this many times slower than the best is not timed any longer.
_HOPELESS = 1.5


def best_times_s(
    calls: Mapping[str, Callable[[], object]], budget_s: float, *, drop_slow: bool = True
) -> dict[str, float]:
    """Return each call's shortest time in seconds.

    Turns are taken, so that other load hits all alike.

    :param budget_s: no further turn starts after this; three turns are always taken.
    :param drop_slow: spend the turns after the first three on the contenders only.
    """
    times = dict.fromkeys(calls, float('inf'))
    start = time.perf_counter()
    for turn in range(_MAX_TURNS):
        for name, call in calls.items():
            hopeless = drop_slow and times[name] > _HOPELESS * min(times.values())
            if turn >= _MIN_TURNS and hopeless:
                continue
            for _ in range(_CALLS_A_TURN):
                before = time.perf_counter()
                call()
                times[name] = min(times[name], time.perf_counter() - before)
        if turn + 1 >= _MIN_TURNS and time.perf_counter() - start > budget_s:
            break
    return times
