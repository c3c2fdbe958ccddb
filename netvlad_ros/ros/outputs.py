# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the node publishes, and how a detection becomes messages."""

from __future__ import annotations

from typing import Any, Optional

from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Path
from rclpy.lifecycle import LifecycleNode
from visualization_msgs.msg import MarkerArray

from netvlad_msgs.msg import KeyframeDescriptor, LoopClosureArray, PlaceId
from netvlad_ros.loop_closure.detector import Detection
from netvlad_ros.ros import qos
from netvlad_ros.ros.conversions import closures_to_msg, descriptor_to_msg, place_to_msg
from netvlad_ros.ros.visualization import Trace
from netvlad_ros.types import LoopClosure


class Outputs:
    """Publishers of a lifecycle node; what is published while it is inactive goes nowhere.

    :param with_descriptors: publish ``keyframe_descriptor`` as well.
    """

    def __init__(self, node: LifecycleNode, with_descriptors: bool) -> None:
        self._node = node
        self._publishers: list[Any] = []

        def publisher(message_type: Any, topic: str, profile: Any) -> Any:
            made = node.create_lifecycle_publisher(
                message_type, topic, **qos.overridable(profile)
            )
            self._publishers.append(made)
            return made

        self._closures = publisher(LoopClosureArray, 'loop_closures', qos.RESULT_QOS)
        self._places = publisher(PlaceId, 'place_id', qos.RESULT_QOS)
        self._path = publisher(Path, 'keyframes', qos.LATCHED_QOS)
        self._markers = publisher(MarkerArray, 'loop_closure_markers', qos.LATCHED_QOS)
        self._diagnostics = publisher(DiagnosticArray, '/diagnostics', qos.RESULT_QOS)
        self._descriptors: Optional[Any] = None
        if with_descriptors:
            self._descriptors = publisher(
                KeyframeDescriptor, 'keyframe_descriptor', qos.RESULT_QOS
            )
        self._robot = node.get_namespace().strip('/')
        self._trace = Trace()

    def destroy(self) -> None:
        """Take the publishers down; a late viewer gets nothing of an earlier configuration."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = []

    def publish(self, detection: Detection, odom_frame_id: str, model_id: str) -> None:
        """Publish the closures, the place and the descriptor of a new keyframe."""
        keyframe, visit, frame = detection.keyframe, detection.visit, detection.frame
        assert keyframe is not None and frame is not None
        optical_frame_id = frame.camera.frame_id
        if detection.closures:
            self._closures.publish(closures_to_msg(detection.closures, optical_frame_id))
        if visit is not None:
            has_pose = keyframe.T_odom_base is not None
            pose_frame_id = odom_frame_id if has_pose else optical_frame_id
            self._places.publish(place_to_msg(keyframe, visit, pose_frame_id))
        if self._descriptors is not None and detection.descriptor is not None:
            self._descriptors.publish(
                descriptor_to_msg(
                    keyframe, detection.descriptor, model_id, self._robot, optical_frame_id
                )
            )
        self._trace.add(keyframe, odom_frame_id)
        self._trace.add_closures(detection.closures)

    def publish_verified(self, closures: tuple[LoopClosure, ...], frame_id: str) -> None:
        """Publish what verification said of the closures of one query."""
        self._closures.publish(closures_to_msg(closures, frame_id))
        self._trace.add_closures(closures)

    def publish_drawing(self) -> None:
        """Publish path and markers if they have changed and somebody looks."""
        if not any(p.get_subscription_count() for p in (self._path, self._markers)):
            return
        drawing = self._trace.drawing()
        if drawing is not None:
            self._path.publish(drawing[0])
            self._markers.publish(drawing[1])

    def publish_diagnostics(self, message: DiagnosticArray) -> None:
        """Publish the node's health."""
        self._diagnostics.publish(message)
