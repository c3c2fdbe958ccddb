# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The one pipeline from a camera frame to loop closures; node and evaluation both drive it."""

from __future__ import annotations

from dataclasses import dataclass, field
import time
from typing import Optional

from netvlad_ros.config import DetectorConfig
from netvlad_ros.descriptor import Descriptor
from netvlad_ros.keyframes import Exclusion, KeyframeMap, KeyframeSelector, Neighbour
from netvlad_ros.loop_closure.places import PlaceTracker
from netvlad_ros.types import (
    Candidate,
    Float32Array,
    Frame,
    Keyframe,
    LoopClosure,
    PlaceVisit,
)

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class Detection:
    """What one frame led to.

    :param keyframe: the stored keyframe; None if the frame was not selected.
    :param candidates: the most similar allowed keyframes, whatever the threshold, best first.
    :param closures: the candidates that were accepted, by rank.
    :param descriptor: (D,) float32 unit vector of the keyframe.
    :param latency_ms: time spent on ``descriptor``, ``search`` and ``total``, in milliseconds.
    """

    keyframe: Optional[Keyframe] = None
    visit: Optional[PlaceVisit] = None
    candidates: tuple[Candidate, ...] = ()
    closures: tuple[LoopClosure, ...] = ()
    descriptor: Optional[Float32Array] = None
    latency_ms: dict[str, float] = field(default_factory=dict)


class LoopClosureDetector:
    """Keyframe selection, description, search, decision and storage of one camera's frames.

    :param descriptor: turns images into unit vectors.
    :param keyframe_map: holds the keyframes; a session must have begun in it.
    """

    def __init__(
        self, descriptor: Descriptor, keyframe_map: KeyframeMap, config: DetectorConfig
    ) -> None:
        self._descriptor = descriptor
        self._map = keyframe_map
        self._config = config
        self._selector = KeyframeSelector(config.keyframes)
        self._places = PlaceTracker(config.places)

    @property
    def keyframe_map(self) -> KeyframeMap:
        """The map this detector searches and fills."""
        return self._map

    @property
    def model_id(self) -> str:
        """The model whose descriptors the map holds."""
        return self._descriptor.model_id

    def new_session(self) -> None:
        """Forget the motion so far: the next frame belongs to another run or place."""
        self._selector.reset()
        self._places.reset()

    def process(self, frame: Frame) -> Detection:
        """Take one frame; what it returns is already stored.

        :raises InputError: the image cannot be described.
        :raises MapError: the keyframe cannot be stored.
        """
        started_ns = time.perf_counter_ns()
        if not self._selector.accepts(frame):
            return Detection()
        descriptor = self._descriptor.compute([frame.image_rgb])[0]
        described_ns = time.perf_counter_ns()
        candidates = self._search(frame, descriptor)
        accepted = [
            candidate
            for candidate in candidates
            if candidate.similarity >= self._config.search.min_similarity
        ]
        searched_ns = time.perf_counter_ns()

        best = self._map.keyframe(accepted[0].keyframe_id) if accepted else None
        keyframe, visit = self._map.add(frame, descriptor, self._places.choose(frame, best))
        self._places.entered(keyframe)
        closures = tuple(
            LoopClosure(
                query=keyframe,
                match=self._map.keyframe(candidate.keyframe_id),
                similarity=candidate.similarity,
                margin=candidate.margin,
                normalised=candidate.normalised,
                rank=candidate.rank,
                model_id=self._descriptor.model_id,
                latency_ns=time.perf_counter_ns() - started_ns,
            )
            for candidate in accepted
        )
        if closures:
            self._map.add_closures(closures)
        finished_ns = time.perf_counter_ns()
        return Detection(
            keyframe=keyframe,
            visit=visit,
            candidates=tuple(candidates),
            closures=closures,
            descriptor=descriptor,
            latency_ms={
                'descriptor': (described_ns - started_ns) / NS_PER_MS,
                'search': (searched_ns - described_ns) / NS_PER_MS,
                'total': (finished_ns - started_ns) / NS_PER_MS,
            },
        )

    def recognize(self, frame: Frame, max_candidates: int = 0) -> list[Candidate]:
        """Return the most similar keyframes of the whole map for an image; store nothing.

        :param max_candidates: 0 takes ``search.max_candidates``.
        """
        descriptor = self._descriptor.compute([frame.image_rgb])[0]
        count = max_candidates or self._config.search.max_candidates
        return _ranked(self._map.search(descriptor, count))

    def _search(self, frame: Frame, descriptor: Float32Array) -> list[Candidate]:
        recent = Exclusion(
            session=self._map.session.uuid,
            newer_than_ns=frame.stamp_ns - int(self._config.search.exclude_s * NS_PER_S),
        )
        return _ranked(self._map.search(descriptor, self._config.search.max_candidates, recent))


def _ranked(neighbours: list[Neighbour]) -> list[Candidate]:
    return [
        Candidate(keyframe_id=neighbour.keyframe_id, similarity=neighbour.similarity, rank=rank)
        for rank, neighbour in enumerate(neighbours)
    ]
