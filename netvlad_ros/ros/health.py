# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What went wrong and how often: throttled logs, counters and /diagnostics."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
import threading
import time

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
import numpy as np

from netvlad_ros.errors import NetvladError

LOG_PERIOD_S = 10.0
LATENCIES_KEPT = 200


class Health:
    """Counters and problems of one node; every method may be called from any thread.

    :param warn: writes one line to the node's log.
    """

    def __init__(self, warn: Callable[[str], object]) -> None:
        self._warn = warn
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._problems: Counter[str] = Counter()
        self._logged_s: dict[str, float] = {}
        self._recent: dict[str, float] = {}
        self._seen_s: dict[str, float] = {}
        self._latency_ms: dict[str, deque[float]] = {}

    def saw(self, topic: str) -> None:
        """Note that a message arrived."""
        with self._lock:
            self._counts[f'{topic} messages'] += 1
            self._seen_s[topic] = time.monotonic()

    def has_seen(self, topic: str) -> bool:
        """Return whether a message of the topic ever arrived."""
        with self._lock:
            return topic in self._seen_s

    def count(self, what: str, amount: int = 1) -> None:
        """Count an event that is no fault."""
        with self._lock:
            self._counts[what] += amount

    def problem(self, kind: str, message: str, amount: int = 1) -> None:
        """Count a problem and log it: the first of its kind at once, then at most every 10 s."""
        now_s = time.monotonic()
        with self._lock:
            self._problems[kind] += amount
            self._recent[kind] = now_s
            last_s = self._logged_s.get(kind)
            if last_s is not None and now_s - last_s < LOG_PERIOD_S:
                return
            self._logged_s[kind] = now_s
            total = self._problems[kind]
        self._warn(message if total == 1 else f'{message} ({total} times so far)')

    @contextmanager
    def guard(self, topic: str) -> Iterator[None]:
        """Turn an error of ours in the block into a counted problem of ``topic``."""
        try:
            yield
        except NetvladError as error:
            self.problem(f'bad {topic}', f'{topic}: {error}')

    def latency(self, latency_ms: Mapping[str, float]) -> None:
        """Take the times that one frame spent in each stage."""
        with self._lock:
            for stage, value in latency_ms.items():
                self._latency_ms.setdefault(stage, deque(maxlen=LATENCIES_KEPT)).append(value)

    def problems(self) -> dict[str, int]:
        """Return how often each kind of problem occurred."""
        with self._lock:
            return dict(self._problems)

    def status(
        self,
        name: str,
        timeouts_s: Mapping[str, float],
        facts: Mapping[str, object],
        is_paused: bool = False,
    ) -> DiagnosticStatus:
        """Return the diagnostic status: WARN while paused, inputs are silent or problems recent.

        :param timeouts_s: topic -> silence in seconds that is worth a warning.
        :param facts: further key-value pairs, such as the map's size.
        """
        now_s = time.monotonic()
        with self._lock:
            silent = [
                f'no {topic} ' + ('yet' if topic not in self._seen_s else f'for {age:.0f} s')
                for topic, timeout_s in timeouts_s.items()
                if (age := now_s - self._seen_s.get(topic, -1e9)) > timeout_s
            ]
            recent = [
                kind for kind, at_s in self._recent.items() if now_s - at_s < LOG_PERIOD_S
            ]
            values: dict[str, object] = dict(facts)
            for key, count in self._counts.items():
                # What a worker counts now is added to what those before it counted.
                fact = values.get(key, 0)
                values[key] = count + (fact if isinstance(fact, int) else 0)
            values.update({f'problem: {kind}': n for kind, n in self._problems.items()})
            for stage, samples in self._latency_ms.items():
                p50, p95 = np.percentile(samples, [50, 95])
                values[f'{stage} p50 [ms]'] = f'{p50:.1f}'
                values[f'{stage} p95 [ms]'] = f'{p95:.1f}'
        wrong = ['paused'] * is_paused + silent + recent
        return DiagnosticStatus(
            level=DiagnosticStatus.WARN if wrong else DiagnosticStatus.OK,
            name=name,
            message='; '.join(wrong) or 'recognising places',
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
