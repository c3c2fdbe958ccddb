# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Drive the one pipeline over a recording and keep what it said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
import resource
import sys
import time
from typing import Optional

import cv2
import numpy as np

from netvlad_ros.config import DetectorConfig
from netvlad_ros.descriptor import Descriptor
from netvlad_ros.errors import InputError
from netvlad_ros.evaluation.sources import DAMAGED_IMAGE, Source
from netvlad_ros.keyframes import KeyframeMap
from netvlad_ros.loop_closure.detector import LoopClosureDetector
from netvlad_ros.served_stamps import NS_PER_S, TIME_JUMP_S, ServedStamps, StampVerdict
from netvlad_ros.types import (
    Candidate,
    Float32Array,
    Frame,
    Keyframe,
    LoopClosure,
    UInt8Array,
)

# Judging must not depend on how busy the machine is: no check is cut short.
_NO_TIME_BUDGET_S = 60.0
_PICTURE_WIDTH_PX = 320
_JPEG_QUALITY = 85
# Longer than any gap of a protocol.
_BETWEEN_DRIVES_NS = 10**7 * NS_PER_S

Progress = Callable[[Iterable[Frame], Optional[int], str, str], Iterator[Frame]]


@dataclass(frozen=True)
class Replay:
    """What the detector made of a recording; index i is the i-th keyframe.

    :param frame_indices: of the keyframes among the images of the recording, damaged ones
        included.
    :param candidates: by keyframe, whatever the threshold, best first.
    :param closures: in their final state, by query and rank.
    :param descriptors: (N, D) float32 unit rows.
    :param pictures: reduced JPEGs of the keyframes, to look at.
    :param times_ns: rising where the clock was set back, by which the time between keyframes
        is judged; else the stamps.
    :param latency_ms: by step, one value per keyframe.
    """

    model_id: str
    config: DetectorConfig
    keyframes: tuple[Keyframe, ...]
    frame_indices: tuple[int, ...]
    candidates: tuple[tuple[Candidate, ...], ...]
    closures: tuple[LoopClosure, ...]
    descriptors: Float32Array
    pictures: tuple[bytes, ...]
    times_ns: tuple[int, ...]
    frames: int
    skipped: Mapping[str, int]
    skipped_examples: Mapping[str, str]
    latency_ms: Mapping[str, list[float]]
    wall_s: float
    peak_rss_mb: float

    @property
    def stamps_ns(self) -> tuple[int, ...]:
        """Stamps of the keyframes."""
        return tuple(keyframe.stamp_ns for keyframe in self.keyframes)

    @property
    def thresholds_open(self) -> bool:
        """The thresholds of the detector did not act: its closures are only candidates."""
        return self.config.search.min_similarity <= -1.0

    @property
    def index_of(self) -> dict[int, int]:
        """Index of each keyframe id."""
        return {keyframe.id: index for index, keyframe in enumerate(self.keyframes)}


def replay(
    source: Source,
    descriptor: Descriptor,
    config: DetectorConfig,
    map_path: Path | None = None,
    progress: Progress | None = None,
    watch: Callable[[int, Frame], None] | None = None,
) -> Replay:
    """Run the detector over every frame of a source, in order, in this thread.

    :param map_path: keep the map here; None holds it in memory.
    :param progress: as ``netvlad_ros.cli.progress.progress``.
    :param watch: is shown each keyframe's index and frame.
    :raises InputError: the source is damaged, or no frame of it became a keyframe.
    """
    verification = replace(config.verification, time_budget_s=_NO_TIME_BUDGET_S)
    config = replace(config, verification=verification)
    started = time.perf_counter()
    keyframes: list[Keyframe] = []
    frame_indices: list[int] = []
    candidates: list[tuple[Candidate, ...]] = []
    descriptors: list[Float32Array] = []
    pictures: list[bytes] = []
    times_ns: list[int] = []
    latency_ms: dict[str, list[float]] = {}
    # A verified closure takes the place of the candidate it was.
    closures: dict[tuple[int, int], LoopClosure] = {}
    frames, stamps, clock = 0, ServedStamps(), _Clock()
    with KeyframeMap.open(map_path, descriptor.model_id, descriptor.dim, config.map) as store:
        store.begin_session(source.name, source.camera)
        detector = LoopClosureDetector(descriptor, store, config)
        stream: Iterable[Frame] = source.frames()
        if progress is not None:
            stream = progress(stream, source.frame_count, 'frame', source.name)
        for frame in stream:
            frames += 1
            # A recording has no other clock than its stamps: a leap ahead is a pause.
            arrived_s = frame.stamp_ns / NS_PER_S
            verdict = stamps.judge(frame.stamp_ns, arrived_s, TIME_JUMP_S)
            if verdict.problem:
                kept = ' (image kept)' if verdict.serves else ''
                source.skipped.add(verdict.problem + kept, verdict.text)
            if not verdict.serves:
                continue
            if verdict.begins_session:
                store.begin_session(source.name, source.camera)
                detector.new_session(verdict.clock_step_ns)
                stamps.clear()
            elif verdict.clock_step_ns is not None:
                detector.step_clock(verdict.clock_step_ns)
            stamps.add(frame.stamp_ns, arrived_s)
            time_ns = clock.time_ns(frame.stamp_ns, verdict)
            detection = detector.process(frame)
            for closure in (*detection.closures, *detector.verify(detection)):
                closures[closure.query.id, closure.match.id] = closure
            if detection.keyframe is None or detection.descriptor is None:
                continue
            taken_ms = dict(detection.latency_ms)
            # The detector's own total ends before the geometry, which the node checks beside it.
            taken_ms['total'] += taken_ms.get('verify', 0.0)
            for step, value in taken_ms.items():
                latency_ms.setdefault(step, []).append(value)
            if watch is not None:
                watch(len(keyframes), frame)
            keyframes.append(detection.keyframe)
            frame_indices.append(frames - 1 + source.skipped.counts[DAMAGED_IMAGE])
            candidates.append(detection.candidates)
            descriptors.append(detection.descriptor)
            pictures.append(picture_jpeg(frame.image_rgb))
            times_ns.append(time_ns)
    if not keyframes:
        first = next(iter(source.skipped.examples.values()), 'it lists none')
        raise InputError(
            f'{source.path} has no usable image: {dict(source.skipped.counts)}; the first: {first}'
        )
    return Replay(
        model_id=descriptor.model_id,
        config=config,
        keyframes=tuple(keyframes),
        frame_indices=tuple(frame_indices),
        candidates=tuple(candidates),
        closures=tuple(sorted(closures.values(), key=lambda c: (c.query.id, c.rank))),
        descriptors=np.stack(descriptors),
        pictures=tuple(pictures),
        times_ns=tuple(times_ns),
        frames=frames,
        skipped=dict(sorted(source.skipped.counts.items())),
        skipped_examples=dict(source.skipped.examples),
        latency_ms=latency_ms,
        wall_s=time.perf_counter() - started,
        peak_rss_mb=peak_rss_mb(),
    )


class _Clock:
    """The stamps of frames as one rising time, where new sessions begin with older stamps."""

    def __init__(self) -> None:
        self._ahead_ns = 0
        self._last_ns = 0

    def time_ns(self, stamp_ns: int, verdict: StampVerdict) -> int:
        """Return the time of the next frame that is served."""
        if verdict.begins_session:
            # A robot whose clock was set drove on; another drive has nothing to mask.
            pause_ns = _BETWEEN_DRIVES_NS if verdict.clock_step_ns is None else 0
            self._ahead_ns = self._last_ns + pause_ns - stamp_ns
        self._last_ns = stamp_ns + self._ahead_ns
        return self._last_ns


def picture_jpeg(image_rgb: UInt8Array) -> bytes:
    """Return an image as a JPEG of at most 320 pixels width."""
    height, width = image_rgb.shape[:2]
    if width > _PICTURE_WIDTH_PX:
        size = (_PICTURE_WIDTH_PX, max(1, round(height * _PICTURE_WIDTH_PX / width)))
        image_rgb = np.asarray(cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA))
    bgr = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return bytes(data)


def peak_rss_mb() -> float:
    """Return the largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak / 1e6 if sys.platform == 'darwin' else peak * 1024 / 1e6
