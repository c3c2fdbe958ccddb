# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The services below ``~/``: map, closures so far, recognition of one image, pause and reset."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from geometry_msgs.msg import Pose
from std_srvs.srv import SetBool, Trigger

from netvlad_msgs.srv import GetLoopClosures, LoadMap, RecognizePlace, SaveMap
from netvlad_ros.errors import MapError, NetvladError
from netvlad_ros.image_messages import image_from_message
from netvlad_ros.keyframes import is_map
from netvlad_ros.ros.conversions import closure_to_msg, stamp_ns_from_msg
from netvlad_ros.ros.intake import BRIDGE
from netvlad_ros.types import NOT_STORED, Frame, Keyframe, LoopClosure

if TYPE_CHECKING:
    from netvlad_ros.ros.node import VprNode

Handler = Callable[[Any, Any], Any]


class MapServices:
    """Answers service calls of a configured node; every failure is an answer, never a crash."""

    def __init__(self, node: VprNode) -> None:
        self._node = node
        handlers: list[tuple[Any, str, Handler]] = [
            (SaveMap, 'save_map', self._save_map),
            (LoadMap, 'load_map', self._load_map),
            (GetLoopClosures, 'get_loop_closures', self._get_closures),
            (RecognizePlace, 'recognize_place', self._recognize),
            (SetBool, 'pause', self._pause),
            (Trigger, 'reset', self._reset),
        ]
        self._services = [
            node.create_service(kind, f'~/{name}', self._answering(name, handler))
            for kind, name, handler in handlers
        ]

    def destroy(self) -> None:
        """Take the services down."""
        for service in self._services:
            self._node.destroy_service(service)

    def _answering(self, name: str, handler: Handler) -> Handler:
        """Return the handler with its errors as answers: an exception would end the executor."""

        def answer(request: Any, response: Any) -> Any:
            try:
                return handler(request, response)
            except NetvladError as error:
                said = str(error)
                if not hasattr(response, 'success'):
                    self._node.health.problem('service failed', f'{name}: {said}')
            except Exception as error:
                said = f'{type(error).__name__}: {error}'
                self._node.health.problem('unexpected error', f'{name}: {said}')
            if hasattr(response, 'success'):
                response.success, response.message = False, said
            return response

        return answer

    def _save_map(self, request: Any, response: Any) -> Any:
        node = self._node
        with node.detector_lock:
            assert node.detector is not None
            keyframe_map = node.detector.keyframe_map
            response.keyframes = len(keyframe_map)
            if request.path:
                response.keyframes = keyframe_map.save_copy(request.path)
                response.message = f'a copy of the map is at {request.path}'
            elif keyframe_map.is_in_memory:
                raise MapError('the map is in memory only: give a path')
            else:
                keyframe_map.flush()
                response.message = f'the map is at {keyframe_map.path or "its database"}'
            response.success = True
        return response

    def _load_map(self, request: Any, response: Any) -> Any:
        node = self._node
        with node.detector_lock:
            assert node.detector is not None
            present = node.detector.keyframe_map
            response.keyframes = len(present)
            if not is_map(request.path):
                raise MapError(
                    f'there is no map in {request.path!r}'
                    if request.path
                    else "the path is empty: 'reset' empties a map in memory"
                )
            lost = len(present) if present.is_in_memory else 0
            if present.is_writer_of(request.path) and not request.read_only:
                # The robot is still where it was.
                node.begin_session(clock_step_ns=0)
            else:
                node.open_map(request.path, request.read_only)
            response.keyframes = len(node.detector.keyframe_map)
        response.success = True
        response.message = f'{request.path} is open'
        if lost:
            response.message += f'; {lost} keyframes of the map in memory are gone'
        return response

    def _get_closures(self, request: Any, response: Any) -> Any:
        # Without the lock of the detector, which serves frames meanwhile.
        detector = self._node.detector
        assert detector is not None
        poses: dict[tuple[str, int], Pose] = {}
        response.closures = [
            closure_to_msg(closure, optical_frame_id, poses)
            for closure, optical_frame_id in detector.closures(stamp_ns_from_msg(request.since))
        ]
        return response

    def _recognize(self, request: Any, response: Any) -> Any:
        node = self._node
        image_rgb = image_from_message(request.image, BRIDGE)
        stamp_ns = stamp_ns_from_msg(request.image.header.stamp)
        frame_id = request.image.header.frame_id
        query = Keyframe(id=NOT_STORED, stamp_ns=stamp_ns, session='', camera=frame_id, place_id=0)
        with node.detector_lock:
            assert node.detector is not None
            keyframe_map = node.detector.keyframe_map
            candidates = node.detector.recognize(
                Frame(stamp_ns, image_rgb), int(request.max_candidates)
            )
            for candidate in candidates:
                closure = LoopClosure(
                    query=query,
                    match=keyframe_map.keyframe(candidate.keyframe_id),
                    similarity=candidate.similarity,
                    rank=candidate.rank,
                    model_id=node.detector.model_id,
                )
                response.candidates.append(closure_to_msg(closure, frame_id))
        response.success = True
        if not candidates:
            response.message = 'the map is empty'
        return response

    def _pause(self, request: Any, response: Any) -> Any:
        self._node.paused = request.data
        response.success = True
        response.message = 'paused' if request.data else 'running'
        return response

    def _reset(self, request: Any, response: Any) -> Any:
        """Begin anew: a stored map keeps its keyframes, a map in memory is emptied."""
        node = self._node
        with node.detector_lock:
            assert node.detector is not None
            if node.detector.keyframe_map.is_in_memory:
                node.open_map('', False)
                response.message = 'the map in memory is empty now'
            else:
                response.message = 'a new session began, stored keyframes are kept'
            node.begin_session()
        response.success = True
        return response
