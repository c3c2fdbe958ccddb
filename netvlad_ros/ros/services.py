# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The services below ``~/``: map, closures so far, recognition of one image, pause and reset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from std_srvs.srv import SetBool, Trigger

from netvlad_msgs.srv import GetLoopClosures, LoadMap, RecognizePlace, SaveMap
from netvlad_ros.errors import NetvladError
from netvlad_ros.image_messages import image_from_message
from netvlad_ros.ros.conversions import closure_to_msg, stamp_ns_from_msg
from netvlad_ros.ros.intake import BRIDGE
from netvlad_ros.types import NOT_STORED, Frame, Keyframe, LoopClosure

if TYPE_CHECKING:
    from netvlad_ros.ros.node import VprNode


class MapServices:
    """Answers service calls of a configured node; every failure is an answer, never a crash."""

    def __init__(self, node: VprNode) -> None:
        self._node = node
        self._services = [
            node.create_service(SaveMap, '~/save_map', self._save_map),
            node.create_service(LoadMap, '~/load_map', self._load_map),
            node.create_service(GetLoopClosures, '~/get_loop_closures', self._get_closures),
            node.create_service(RecognizePlace, '~/recognize_place', self._recognize),
            node.create_service(SetBool, '~/pause', self._pause),
            node.create_service(Trigger, '~/reset', self._reset),
        ]

    def destroy(self) -> None:
        """Take the services down."""
        for service in self._services:
            self._node.destroy_service(service)

    def _save_map(self, request: Any, response: Any) -> Any:
        node = self._node
        with node.detector_lock:
            assert node.detector is not None
            keyframe_map = node.detector.keyframe_map
            response.keyframes = len(keyframe_map)
            try:
                if request.path:
                    keyframe_map.save_copy(request.path)
                    response.message = f'a copy of the map is at {request.path}'
                elif keyframe_map.path is None:
                    response.message = 'the map is in memory only: give a path'
                    return response
                else:
                    keyframe_map.flush()
                    response.message = f'the map is at {keyframe_map.path}'
                response.success = True
            except NetvladError as error:
                response.message = str(error)
        return response

    def _load_map(self, request: Any, response: Any) -> Any:
        node = self._node
        with node.detector_lock:
            try:
                node.open_map(request.path, request.read_only)
                response.success = True
                response.message = f'{request.path or "an empty map in memory"} is open'
            except NetvladError as error:
                response.message = str(error)
            assert node.detector is not None
            response.keyframes = len(node.detector.keyframe_map)
        return response

    def _get_closures(self, request: Any, response: Any) -> Any:
        node = self._node
        with node.detector_lock:
            assert node.detector is not None
            keyframe_map = node.detector.keyframe_map
            for closure in keyframe_map.closures(stamp_ns_from_msg(request.since)):
                camera = keyframe_map.camera(closure.query.id)
                response.closures.append(closure_to_msg(closure, camera.frame_id))
        return response

    def _recognize(self, request: Any, response: Any) -> Any:
        node = self._node
        try:
            image_rgb = image_from_message(request.image, BRIDGE)
        except NetvladError as error:
            response.message = str(error)
            return response
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
            try:
                if node.detector.keyframe_map.path is None:
                    node.open_map('', False)
                    response.message = 'the map in memory is empty now'
                else:
                    response.message = 'a new session began, stored keyframes are kept'
                node.begin_session()
                response.success = True
            except NetvladError as error:
                response.message = str(error)
        return response
