# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The one pipeline from a camera frame to loop closures; node and evaluation both drive it.

``process`` is the fast path: select, describe, search, score, decide, store. ``verify`` is the
slow one: local features and geometry of what ``process`` found. The node calls it in a thread of
its own, the evaluation right after ``process``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
import logging
import math
from pathlib import Path
import time
from typing import Optional
import uuid

import numpy as np

from netvlad_ros.config import DetectorConfig
from netvlad_ros.descriptor import Descriptor
from netvlad_ros.errors import MapError
from netvlad_ros.keyframes import Exclusion, KeyframeMap, KeyframeSelector
from netvlad_ros.loop_closure.calibration import Calibration, load_calibration
from netvlad_ros.loop_closure.closure_check import ClosureCheck
from netvlad_ros.loop_closure.consistency import SequenceConsistency
from netvlad_ros.loop_closure.lately import Lately
from netvlad_ros.loop_closure.odometry_gate import OdometryGate
from netvlad_ros.loop_closure.places import PlaceTracker
from netvlad_ros.loop_closure.scores import SearchResult, score
from netvlad_ros.loop_closure.sequence import rank_by_sequence
from netvlad_ros.loop_closure.stationary import StationaryFilter
from netvlad_ros.loop_closure.unstored import UnstoredClosures
from netvlad_ros.loop_closure.view_store import encode_thumbnail
from netvlad_ros.types import (
    NOT_STORED,
    Candidate,
    ClosureStatus,
    Float32Array,
    Frame,
    Keyframe,
    LoopClosure,
    PlaceVisit,
)

logger = logging.getLogger(__name__)

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
# The margin of a match needs a rival outside its neighbourhood among the search results.
NEIGHBOURHOODS_SEARCHED = 8
# Keyframes whose session and pose the scores ask for again and again, about 1 kB each.
KEYFRAMES_REMEMBERED = 20_000


@dataclass(frozen=True)
class Detection:
    """What one frame led to.

    :param keyframe: the stored keyframe; None if the frame was not selected. Its id is
        NOT_STORED where the map is read-only.
    :param visit: its place; None in a read-only map where nothing matched.
    :param candidates: the most similar allowed keyframes, whatever the threshold, best first.
    :param closures: the candidates that were accepted, by rank.
    :param descriptor: (D,) float32 unit vector of the keyframe.
    :param moved: the robot moved since its last closure; standing still gives no further one.
    :param arrived_ns: ``time.perf_counter_ns`` when the image arrived.
    :param latency_ms: time spent on ``descriptor``, ``search`` and ``total``, in milliseconds.
    """

    keyframe: Optional[Keyframe] = None
    visit: Optional[PlaceVisit] = None
    candidates: tuple[Candidate, ...] = ()
    closures: tuple[LoopClosure, ...] = ()
    descriptor: Optional[Float32Array] = None
    frame: Optional[Frame] = field(default=None, repr=False)
    moved: bool = True
    arrived_ns: int = 0
    latency_ms: dict[str, float] = field(default_factory=dict)


class LoopClosureDetector:
    """Keyframe selection, description, search, decision and storage of one camera's frames.

    ``process`` is for one thread at a time, and so is ``verify``; the two may run side by side.

    :param descriptor: turns images into unit vectors.
    :param keyframe_map: holds the keyframes; unless it is read-only, a session has begun in it.
    """

    def __init__(
        self, descriptor: Descriptor, keyframe_map: KeyframeMap, config: DetectorConfig
    ) -> None:
        self._descriptor = descriptor
        self._map = keyframe_map
        self._config = config
        self._selector = KeyframeSelector(config.keyframes)
        self._places = PlaceTracker(config.places)
        self._consistency = SequenceConsistency(config.consistency)
        self._stationary = StationaryFilter(config.consistency)
        self._gate = OdometryGate(config.consistency)
        self._check = ClosureCheck(keyframe_map, self._existing, config.verification)
        # Newest first; the search by sequence reads them all, the normalised score the newest.
        self._recent: deque[Float32Array] = deque(maxlen=config.consistency.sequence_length)
        self._own_session = ''
        self._unstored = UnstoredClosures()
        self._lately = Lately(int(config.search.exclude_s * NS_PER_S))
        self._keyframes: dict[int, Keyframe] = {}
        self._calibration: Optional[Calibration] = None
        if config.search.calibration:
            self._calibration = load_calibration(
                Path(config.search.calibration).expanduser(), descriptor.model_id
            )
        recommended = descriptor.recommended_min_similarity
        if recommended is not None and recommended != config.search.min_similarity:
            logger.info(
                'model %s recommends search.min_similarity %s, it is set to %s',
                descriptor.model_id, recommended, config.search.min_similarity,
            )

    @property
    def keyframe_map(self) -> KeyframeMap:
        """The map this detector searches and fills."""
        return self._map

    @property
    def model_id(self) -> str:
        """The model whose descriptors the map holds."""
        return self._descriptor.model_id

    def new_session(self, clock_step_ns: Optional[int] = None) -> None:
        """Forget the motion so far: the next frame belongs to another run, or to another place.

        :param clock_step_ns: given where the robot drove on and only its clock was set, to this
            much later; what it saw a moment ago then stays excluded.
        """
        self._own_session = ''
        if clock_step_ns is None:
            self._lately.forget()
        self.step_clock(clock_step_ns or 0)

    def step_clock(self, step_ns: int) -> None:
        """Take the next frame as the first one of a motion, seen a moment after the last one.

        :param step_ns: by which the clock was set, negative if back.
        """
        self._lately.step_clock(step_ns)
        self._selector.reset()
        self._places.reset()
        self._consistency.reset()
        self._stationary.reset()
        self._gate.reset()
        self._check.reset()
        self._recent.clear()

    def process(self, frame: Frame, waited_ns: int = 0) -> Detection:
        """Take one frame; what it returns is already stored.

        :param waited_ns: time since the image arrived; the closures' latency counts from then.
        :raises InputError: the image cannot be described.
        :raises MapError: the keyframe cannot be stored.
        """
        started_ns = time.perf_counter_ns()
        if not self._selector.accepts(frame):
            return Detection()
        if 0 in frame.camera.size_wh:
            # The thumbnail of the keyframe is smaller than the image that K is of.
            height, width = frame.image_rgb.shape[:2]
            frame = replace(frame, camera=replace(frame.camera, size_wh=(width, height)))
        descriptor = self._descriptor.compute([frame.image_rgb])[0]
        described_ns = time.perf_counter_ns()
        candidates = self._search(frame, descriptor)
        moved = self._stationary.passes(frame.T_odom_base)
        accepted = self._accept(frame, candidates, moved)
        searched_ns = time.perf_counter_ns()

        matches = [self._map.keyframe(candidate.keyframe_id) for candidate, _ in accepted]
        keyframe, visit = self._store(frame, descriptor, matches[0] if matches else None)
        self._gate.add(keyframe)
        closures = tuple(
            self._closure(keyframe, match, candidate, support, started_ns - waited_ns)
            for (candidate, support), match in zip(accepted, matches, strict=True)
        )
        if closures:
            self._keep(closures, frame)
            self._stationary.closed(frame.T_odom_base)
        finished_ns = time.perf_counter_ns()
        return Detection(
            keyframe=keyframe,
            visit=visit,
            candidates=tuple(candidates),
            closures=closures,
            descriptor=descriptor,
            frame=frame,
            moved=moved,
            arrived_ns=started_ns - waited_ns,
            latency_ms={
                'descriptor': (described_ns - started_ns) / NS_PER_MS,
                'search': (searched_ns - described_ns) / NS_PER_MS,
                'total': (finished_ns - started_ns) / NS_PER_MS,
            },
        )

    def verify(self, detection: Detection) -> tuple[LoopClosure, ...]:
        """Check the geometry of a detection's closures and best candidates.

        Every closure of the detection comes back as VERIFIED or REJECTED. A candidate below the
        threshold comes back only if it is VERIFIED and beats them all: geometry outranks
        similarity. What is returned is already stored.

        :raises MapError: the answers cannot be stored.
        """
        keyframe, frame = detection.keyframe, detection.frame
        if keyframe is None or frame is None or not self._config.verification.enabled:
            return ()
        started_ns = time.perf_counter_ns()
        published = {closure.match.id for closure in detection.closures}
        answers = self._check.judged(
            keyframe, frame, self._to_verify(detection, keyframe), published,
            lambda match: self._gate.allows(keyframe, match),
        )
        kept = tuple(
            replace(
                self._calibrated(answer),
                latency_ns=time.perf_counter_ns() - detection.arrived_ns,
            )
            for answer in answers
        )
        if kept:
            self._keep(kept, frame)
        detection.latency_ms['verify'] = (time.perf_counter_ns() - started_ns) / NS_PER_MS
        return kept

    def closures(self, since_ns: int = 0) -> list[tuple[LoopClosure, str]]:
        """Return the latest state of all closures of the map and of this run, by stamp and rank.

        May be called from any thread.

        :param since_ns: the stamp of the oldest query.
        :returns: each with the optical frame of the query's camera.
        :raises MapError: the map is damaged or closed.
        """
        optical_frame_ids: dict[tuple[str, str], str] = {}
        found = self._unstored.since(since_ns)
        for closure in self._map.closures(since_ns):
            query = closure.query
            key = query.session, query.camera
            if key not in optical_frame_ids:
                optical_frame_ids[key] = self._map.camera(query.id).frame_id
            found.append((closure, optical_frame_ids[key]))
        return sorted(found, key=lambda entry: (entry[0].query.stamp_ns, entry[0].rank))

    def _keep(self, closures: tuple[LoopClosure, ...], frame: Frame) -> None:
        if self._map.read_only:
            self._unstored.add(closures, frame.camera.frame_id)
        else:
            self._map.add_closures(closures)

    def recognize(self, frame: Frame, max_candidates: int = 0) -> list[Candidate]:
        """Return the most similar keyframes of the whole map for an image; store nothing.

        :param max_candidates: 0 takes ``search.max_candidates``.
        """
        descriptor = self._descriptor.compute([frame.image_rgb])[0]
        keep = max_candidates or self._config.search.max_candidates
        return self._scored(descriptor[None], None, keep, math.nan)

    def _search(self, frame: Frame, descriptor: Float32Array) -> list[Candidate]:
        reference = float(descriptor @ self._recent[0]) if self._recent else math.nan
        self._recent.appendleft(descriptor)
        recent = None
        if self._map.session is not None:
            recent = Exclusion(
                session=self._map.session.uuid,
                newer_than_ns=frame.stamp_ns - int(self._config.search.exclude_s * NS_PER_S),
                ids=self._lately.before_the_step(frame.stamp_ns),
            )
        return self._scored(
            np.stack(self._recent), recent, self._config.search.max_candidates, reference
        )

    def _scored(
        self,
        sequence: Float32Array,
        exclude: Optional[Exclusion],
        keep: int,
        reference_similarity: float,
    ) -> list[Candidate]:
        """Search with (L, D) descriptors, the query's own first, and score what is found."""
        neighbourhood = 2 * self._config.consistency.neighbourhood_keyframes + 1
        count = keep + NEIGHBOURHOODS_SEARCHED * neighbourhood
        results: Sequence[SearchResult] = self._map.search(sequence[0], count, exclude)
        if len(sequence) > 1:
            results = rank_by_sequence(
                results, sequence, lambda ids: self._comparable(ids, exclude),
                self._map.descriptors,
            )  # fmt: skip
        return score(
            results, self._known, self._config.consistency, reference_similarity, keep
        )

    def _known(self, keyframe_id: int) -> Keyframe:
        """Return a keyframe as it was when first asked for; its place may have changed since.

        Each query asks for about a hundred, and one question to the map takes 0.1 ms.
        """
        keyframe = self._keyframes.get(keyframe_id)
        if keyframe is None:
            keyframe = self._keyframes[keyframe_id] = self._map.keyframe(keyframe_id)
            if len(self._keyframes) > KEYFRAMES_REMEMBERED:
                del self._keyframes[next(iter(self._keyframes))]
        return keyframe

    def _comparable(self, ids: Sequence[int], exclude: Optional[Exclusion]) -> list[Keyframe]:
        """Return the keyframes with a sound descriptor that are not the query's recent past."""
        hidden = {*self._map.damaged, *(exclude.ids if exclude else ())}
        session = exclude.session if exclude else None
        newest_ns = exclude.newer_than_ns if exclude else None
        return [
            k
            for k in self._existing(ids)
            if k.id not in hidden
            and not (k.session == session and newest_ns is not None and k.stamp_ns > newest_ns)
        ]

    def _existing(self, ids: Sequence[int]) -> list[Keyframe]:
        found = []
        for id_ in ids:
            with suppress(MapError):
                found.append(self._known(id_))
        return found

    def _accept(
        self, frame: Frame, candidates: Sequence[Candidate], moved: bool
    ) -> list[tuple[Candidate, int]]:
        """Return the candidates that pass every cheap check, each with its support."""
        if not moved:
            return []  # seen from where it was seen before, a match is no second evidence
        alike = [c for c in candidates if c.similarity >= self._config.search.min_similarity]
        support = self._consistency.update(alike, self._known)
        query = self._query(frame)
        self._gate.add(query)
        return [
            (candidate, count)
            for candidate, count in zip(alike, support, strict=True)
            if self._gate.allows(query, self._known(candidate.keyframe_id))
        ]

    def _query(self, frame: Frame) -> Keyframe:
        """Return a frame as a keyframe that is not stored (yet)."""
        if self._map.session is not None:
            session = self._map.session.uuid
        else:
            self._own_session = self._own_session or str(uuid.uuid4())
            session = self._own_session
        return Keyframe(
            id=NOT_STORED,
            stamp_ns=frame.stamp_ns,
            session=session,
            camera=frame.camera.name,
            place_id=0,
            T_odom_base=frame.T_odom_base,
        )

    def _store(
        self, frame: Frame, descriptor: Float32Array, match: Optional[Keyframe]
    ) -> tuple[Keyframe, Optional[PlaceVisit]]:
        if self._map.read_only:
            query = self._query(frame)
            if match is None:
                return query, None
            _, _, visits = self._map.place(match.place_id)
            return (
                replace(query, place_id=match.place_id),
                PlaceVisit(place_id=match.place_id, is_new=False, visits=visits + 1),
            )
        thumbnail = encode_thumbnail(frame.image_rgb, self._config.map.thumbnail_px)
        place_id = self._places.choose(frame, match)
        keyframe, visit = self._map.add(frame, descriptor, place_id, thumbnail)
        self._places.entered(keyframe)
        self._lately.add(keyframe.stamp_ns, keyframe.id)
        return keyframe, visit

    def _closure(
        self,
        query: Keyframe,
        match: Keyframe,
        candidate: Candidate,
        support: int,
        arrived_ns: int,
    ) -> LoopClosure:
        consistent = support >= self._config.consistency.min_support
        closure = LoopClosure(
            query=query,
            match=match,
            similarity=candidate.similarity,
            margin=candidate.margin,
            normalised=candidate.normalised,
            consistency=support,
            rank=candidate.rank,
            status=ClosureStatus.CONSISTENT if consistent else ClosureStatus.CANDIDATE,
            model_id=self.model_id,
            latency_ns=time.perf_counter_ns() - arrived_ns,
        )
        return self._calibrated(closure)

    def _calibrated(self, closure: LoopClosure) -> LoopClosure:
        return closure if self._calibration is None else self._calibration.apply(closure)

    def _to_verify(self, detection: Detection, keyframe: Keyframe) -> list[LoopClosure]:
        by_match = {closure.match.id: closure for closure in detection.closures}
        out = list(detection.closures)
        if not detection.moved:
            return out
        for candidate in detection.candidates[: self._config.verification.max_candidates]:
            if candidate.keyframe_id not in by_match:
                match = self._map.keyframe(candidate.keyframe_id)
                out.append(self._closure(keyframe, match, candidate, 1, detection.arrived_ns))
        return out
