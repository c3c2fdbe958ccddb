# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node ``vpr``: images and odometry in, loop closures and place ids out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import importlib
import threading
import time
import traceback
from typing import Any, Optional

from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from netvlad_ros.config import DetectorConfig
from netvlad_ros.descriptor import Descriptor, load_descriptor
from netvlad_ros.errors import NetvladError
from netvlad_ros.keyframes import KeyframeMap
from netvlad_ros.loop_closure.detector import Detection, LoopClosureDetector
from netvlad_ros.ros import parameters, qos
from netvlad_ros.ros.bounded_worker import BoundedWorker
from netvlad_ros.ros.conversions import stamp_ns_from_msg
from netvlad_ros.ros.health import Health
from netvlad_ros.ros.intake import ImageArrival, Intake
from netvlad_ros.ros.outputs import Outputs
from netvlad_ros.ros.services import MapServices
from netvlad_ros.served_stamps import ServedStamps

NS_PER_S = 1_000_000_000
DRAWING_PERIOD_S = 1.0
# Detections that wait for their geometry; each holds an image and its depth, about 2 MB.
VERIFICATIONS_WAITING = 16


@dataclass(frozen=True)
class _Pending:
    """A detection whose geometry is still to be checked, with the detector that made it."""

    detector: LoopClosureDetector
    detection: Detection
    frame_id: str


class VprNode(LifecycleNode):
    """Recognises places in a robot's camera images.

    Weights and map are loaded on configure, images are served while active, and all memory is
    given back on cleanup. Inference runs in a thread of its own on the newest image.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('vpr', **kwargs)
        self._settings = {
            *parameters.declare(self, parameters.NodeConfig()),
            *parameters.declare(self, DetectorConfig()),
        }
        self.health = Health(self.get_logger().warning)
        self.outputs: Optional[Outputs] = None
        self.descriptor: Optional[Descriptor] = None
        self.detector: Optional[LoopClosureDetector] = None
        # Held by whoever uses the detector: the worker for a frame, a service for its answer.
        self.detector_lock = threading.Lock()
        self.node_config = parameters.NodeConfig()
        self.detector_config = DetectorConfig()
        self.paused = False
        self._intake: Optional[Intake] = None
        self._worker: Optional[BoundedWorker[ImageArrival]] = None
        self._verification: Optional[BoundedWorker[_Pending]] = None
        self._stamps = ServedStamps()
        self._inputs: list[Any] = []
        self._periodic: list[Any] = []
        self._map_services: Optional[MapServices] = None
        self.add_on_set_parameters_callback(self._refuse_late)

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters, load the model, open the map, make the publishers."""
        result = self._attempt('configure', self._configure)
        if result != TransitionCallbackReturn.SUCCESS:
            self._release()
            return result
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start the worker."""
        super().on_activate(state)
        result = self._attempt('activate', self._activate)
        if result != TransitionCallbackReturn.SUCCESS:
            self._stop_serving()
            super().on_deactivate(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop serving images; model and map stay loaded."""
        self._stop_serving()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close the map and free the model."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop, close and free everything."""
        self._stop_serving()
        self._release()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything after a failed transition, so that the next configure can succeed."""
        self.close()
        return super().on_error(state)

    def bring_up(self) -> bool:
        """Configure and activate, unless a signal comes in between; return whether it worked."""
        for transition in (self.trigger_configure, self.trigger_activate):
            if not self.context.ok() or transition() != TransitionCallbackReturn.SUCCESS:
                return False
        return True

    def open_map(self, path: str, read_only: bool) -> None:
        """Open a map, begin a session in it and then let go of the present one.

        :raises NetvladError: it cannot be opened, or the detector not made; the present map stays.
        """
        assert self.descriptor is not None
        keyframe_map = KeyframeMap.open(
            path or None,
            self.descriptor.model_id,
            self.descriptor.dim,
            self.detector_config.map,
            read_only=read_only,
        )
        previous = self.detector
        try:
            if not read_only:
                keyframe_map.begin_session(self.node_config.session_name)
            self.detector = LoopClosureDetector(
                self.descriptor, keyframe_map, self.detector_config
            )
        except BaseException:
            # Else its threads keep it open, and this process locks itself out.
            keyframe_map.close()
            raise
        if previous is not None:
            previous.keyframe_map.close()

    def begin_session(self, clock_step_ns: Optional[int] = None) -> None:
        """Begin a new session in the present map: earlier stamps no longer hide any keyframe.

        :param clock_step_ns: as for ``LoopClosureDetector.new_session``.
        """
        assert self.detector is not None
        keyframe_map = self.detector.keyframe_map
        if not keyframe_map.read_only:
            keyframe_map.begin_session(self.node_config.session_name)
        self.detector.new_session(clock_step_ns)
        self._stamps.clear()

    def close(self) -> None:
        """Stop and free everything, whatever state the node is in."""
        self._stop_serving()
        self._release()

    def _attempt(self, name: str, work: Callable[[], None]) -> TransitionCallbackReturn:
        """Do the work of a transition; rclpy swallows an exception in one without a word."""
        try:
            work()
        except NetvladError as error:
            self.get_logger().error(f'cannot {name}: {error}')
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self.get_logger().fatal(f'cannot {name}:\n{traceback.format_exc()}')
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _refuse_late(self, changes: list[Parameter]) -> SetParametersResult:
        """Refuse settings that would act only after the next configure."""
        late = [p.name for p in changes if p.name in self._settings]
        if self.descriptor is None or not late:
            return SetParametersResult(successful=True)
        reason = f'{", ".join(late)}: read on configure; deactivate and clean up the node first'
        return SetParametersResult(successful=False, reason=reason)

    def _configure(self) -> None:
        self.paused = False
        self.node_config = parameters.read(self, parameters.NodeConfig)
        self.detector_config = parameters.read(self, DetectorConfig)
        self.descriptor = load_descriptor(self.detector_config.descriptor)
        self.open_map(self.node_config.map_path, self.node_config.read_only)
        self.outputs = Outputs(self, self.node_config.publish_descriptors)
        self._map_services = MapServices(self)
        self.get_logger().info(f'model {self.descriptor.model_id}: {self.descriptor.describe()}')

    def _activate(self) -> None:
        config = self.node_config
        self._intake = Intake(self.health, config)
        self._verification = BoundedWorker(
            self._verify, 'vpr_verification', capacity=VERIFICATIONS_WAITING
        )
        self._worker = BoundedWorker(self._serve, 'vpr_worker')
        self._subscribe(self._intake)
        # Steady clock: diagnostics must go on while simulated time stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._periodic = [
            self.create_timer(
                config.diagnostics_period_s, self._publish_diagnostics, clock=steady
            ),
            self.create_timer(DRAWING_PERIOD_S, self.outputs.publish_drawing, clock=steady),
        ]

    def _stop_serving(self) -> None:
        for timer in self._periodic:
            self.destroy_timer(timer)
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._periodic, self._inputs = [], []
        if self._intake is not None:
            self._intake.close()
        if self._worker is not None:
            self.health.count('frames dropped, a newer one came', self._worker.dropped)
            self._worker.stop()
        if self._verification is not None:
            self.health.count('verifications dropped', self._verification.dropped)
            self._verification.stop()
        self._worker = self._verification = self._intake = None

    def _release(self) -> None:
        if self._map_services is not None:
            self._map_services.destroy()
        if self.outputs is not None:
            self.outputs.destroy()
        if self.detector is not None:
            try:
                self.detector.keyframe_map.close()
            except NetvladError as error:
                self.get_logger().error(f'map not closed properly: {error}')
        self._map_services = self.outputs = self.detector = self.descriptor = None

    # Topics

    def _subscribe(self, intake: Intake) -> None:
        def subscribe(message_type: Any, topic: str, callback: Any, profile: Any) -> None:
            def on_lost(event: Any) -> None:
                self.health.problem(
                    f'{topic} messages lost on the way',
                    f'{event.total_count} messages of {topic} were lost on the way here: send '
                    'compressed images, start what publishes images with the shared memory of '
                    'config/fastdds.xml, or set '
                    f'qos_overrides.{self.resolve_topic_name(topic)}.subscription.reliability '
                    'to reliable',
                    event.total_count_change,
                )

            self._inputs.append(
                self.create_subscription(
                    message_type, topic, callback, **qos.overridable(profile),
                    event_callbacks=SubscriptionEventCallbacks(message_lost=on_lost),
                )
            )

        if self.node_config.image_transport == 'compressed':
            # A remapping of `image` has to reach the transport's topic below it as well.
            topic = self.resolve_topic_name('image') + '/compressed'
            subscribe(CompressedImage, topic, self._on_image, qos.IMAGE_QOS)
        else:
            subscribe(Image, 'image', self._on_image, qos.IMAGE_QOS)
        subscribe(CameraInfo, 'camera_info', intake.on_camera_info, qos.IMAGE_QOS)
        subscribe(Odometry, 'odom', intake.on_odometry, qos.ODOMETRY_QOS)
        subscribe(Image, 'depth', intake.on_depth, qos.IMAGE_QOS)
        try:
            tf_message = importlib.import_module('tf2_msgs.msg').TFMessage
        except ImportError:
            self.get_logger().info("tf2_msgs is not installed: the camera's pose is not known")
            return
        subscribe(tf_message, '/tf_static', intake.on_static_transforms, qos.STATIC_TF_QOS)

    def _on_image(self, message: Any) -> None:
        self.health.saw('image')
        stamp_ns = stamp_ns_from_msg(message.header.stamp)
        if self._worker is not None and not self.paused:
            self._worker.offer(ImageArrival(message, stamp_ns, time.monotonic()))

    def _expects(self, topic: str) -> bool:
        # count_publishers does not apply remappings by itself.
        name = self.resolve_topic_name(topic)
        return self.health.has_seen(topic) or self.count_publishers(name) > 0

    # Worker thread

    def _serve(self, arrival: ImageArrival) -> None:
        try:
            self._process(arrival)
        except NetvladError as error:
            self.health.problem('frame not processed', str(error))
        except Exception as error:
            # One frame that breaks must not silence the robot for good.
            if self.context.ok():
                self.health.problem('unexpected error', f'{type(error).__name__}: {error}')

    def _process(self, arrival: ImageArrival) -> None:
        intake = self._intake
        if intake is None or not self._is_next(arrival):
            return
        frame = intake.assemble(arrival, self._expects('odom'))
        if frame is None:
            return
        self._stamps.add(arrival.stamp_ns, arrival.arrived_s)
        with self.detector_lock:
            detector = self.detector
            if detector is None:
                return
            waited_s = time.monotonic() - arrival.arrived_s
            detection = detector.process(frame, int(waited_s * NS_PER_S))
        if detection.keyframe is not None:
            self.outputs.publish(detection, intake.odom_frame_id, detector.model_id)
            self.health.count('keyframes')
            self.health.count('loop closures', len(detection.closures))
            if self._verification is not None:
                self._verification.offer(_Pending(detector, detection, frame.camera.frame_id))
            detection.latency_ms['arrival to publication'] = 1e3 * (
                time.monotonic() - arrival.arrived_s
            )
            self.health.latency(detection.latency_ms)

    def _is_next(self, arrival: ImageArrival) -> bool:
        """Return whether an image is to be processed, after what its stamp asks for."""
        verdict = self._stamps.judge(
            arrival.stamp_ns, arrival.arrived_s, self.node_config.time_jump_s
        )
        if verdict.problem:
            self.health.problem(verdict.problem, verdict.text)
            with self.detector_lock:
                if verdict.begins_session:
                    self.begin_session(verdict.clock_step_ns)
                elif verdict.clock_step_ns is not None and self.detector is not None:
                    self.detector.step_clock(verdict.clock_step_ns)
        return verdict.serves

    def _verify(self, pending: _Pending) -> None:
        try:
            closures = pending.detector.verify(pending.detection)
        except NetvladError as error:
            self.health.problem('closure not verified', str(error))
            return
        except Exception as error:
            if self.context.ok():
                self.health.problem('unexpected error', f'{type(error).__name__}: {error}')
            return
        self.health.latency({'verify': pending.detection.latency_ms.get('verify', 0.0)})
        if closures and self.context.ok():
            self.outputs.publish_verified(closures, pending.frame_id)
            for closure in closures:
                self.health.count(f'closures {closure.status.name.lower()}')

    # Timers

    def _publish_diagnostics(self) -> None:
        detector, worker, intake = self.detector, self._worker, self._intake
        if detector is None or worker is None or intake is None:
            return
        facts: dict[str, object] = {
            'model': detector.model_id,
            'frames dropped, a newer one came': worker.dropped,
            'calibration of the camera': intake.calibration,
            'camera on the robot': intake.mounting,
            'paused': self.paused,
        }
        try:
            # A map that is a database is asked over the network.
            stats = detector.keyframe_map.stats()
            facts.update({f'map {key}': value for key, value in stats.items()})
        except Exception as error:
            self.health.problem('map does not answer', f'the map does not answer: {error}')
        inputs = ['image', *filter(self._expects, ('odom', 'depth', 'camera_info'))]
        status = self.health.status(
            self.get_fully_qualified_name(),
            dict.fromkeys(inputs, self.node_config.input_timeout_s),
            facts,
            self.paused,
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self.outputs.publish_diagnostics(message)
