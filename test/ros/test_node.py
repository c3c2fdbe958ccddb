# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The node in this process: real messages over DDS in, loop closures and places out."""

from dataclasses import replace
import threading
import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from nav_msgs.msg import Odometry, Path
import numpy as np
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from ros_bench import FRAME_NS, image_message, jpeg_message, odometry_message, scene
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import MarkerArray

from netvlad_msgs.msg import KeyframeDescriptor, LoopClosure, LoopClosureArray, PlaceId
from netvlad_msgs.srv import GetLoopClosures, LoadMap, RecognizePlace, SaveMap
from netvlad_ros.ros import visualization
from netvlad_ros.ros.conversions import image_to_msg, stamp_ns_from_msg
from netvlad_ros.ros.health import Health
from netvlad_ros.ros.intake import ImageArrival, Intake
from netvlad_ros.ros.parameters import NodeConfig
from netvlad_ros.ros.qos import LATCHED_QOS
from netvlad_ros.ros.visualization import Trace
from netvlad_ros.types import Camera, ClosureStatus, Keyframe
from netvlad_ros.types import LoopClosure as Closure


class Drive:
    """Publishes frames one by one and waits until the node has served each."""

    def __init__(self, bench, with_odometry=True, transport='raw'):
        self.bench = bench
        self.places = bench.listen(PlaceId, 'place_id')
        self.closures = bench.listen(LoopClosureArray, 'loop_closures')
        self.message = image_message if transport == 'raw' else jpeg_message
        image_type = Image if transport == 'raw' else CompressedImage
        topic = 'image' if transport == 'raw' else 'image/compressed'
        self.images = bench.publisher(image_type, topic)
        self.odometry = bench.publisher(Odometry, 'odom') if with_odometry else None

    def see(self, seed, second, x_m=0.0):
        """Show the scene of a seed at a second and return the place the node says it is."""
        served = len(self.places)
        stamp_ns = second * FRAME_NS
        if self.odometry is not None:
            self.odometry.publish(odometry_message(x_m, stamp_ns))
        self.images.publish(self.message(scene(seed), stamp_ns))
        self.bench.spin_until(lambda: len(self.places) > served)
        return self.places[-1]


def problems(bench):
    return bench.node.health.problems()


@pytest.mark.parametrize('transport', ['raw', 'compressed'])
def test_a_revisit_becomes_a_closure_with_the_place_of_the_first_visit(bench, transport):
    drive = Drive(bench(image_transport=transport), transport=transport)
    first = [drive.see(seed, second, 5.0 * second) for second, seed in enumerate((1, 2, 3, 4), 1)]
    again = drive.see(2, 60, 10.0)
    drive.bench.spin_until(lambda: len(drive.closures) > 0)
    closure = drive.closures[0].closures[0]

    assert [place.is_new for place in first] == [True] * 4
    assert len({place.place_id for place in first}) == 4
    assert (again.place_id, again.is_new, again.visits) == (first[1].place_id, False, 2)
    assert closure.query_id == again.keyframe_id
    assert closure.match_id == first[1].keyframe_id
    assert stamp_ns_from_msg(closure.match_stamp) == 2 * FRAME_NS
    assert stamp_ns_from_msg(closure.query_stamp) == 60 * FRAME_NS
    assert closure.header.frame_id == closure.query_camera == 'camera_optical'
    assert closure.match_odom_pose.position.x == 10.0
    assert closure.similarity > 0.95
    assert closure.status == LoopClosure.STATUS_CANDIDATE
    assert closure.place_id == first[1].place_id
    assert drive.closures[0].header == closure.header


def test_verification_follows_as_an_update_of_the_same_closure(bench):
    drive = Drive(bench())
    for second, seed in enumerate((1, 2, 3, 4, 5), 1):
        drive.see(seed, second)
    drive.see(2, 9)
    verified = lambda: [  # noqa: E731
        c for m in drive.closures for c in m.closures if c.status == LoopClosure.STATUS_VERIFIED
    ]
    drive.bench.spin_until(verified)
    first, update = drive.closures[0].closures[0], verified()[0]
    assert (update.query_id, update.match_id) == (first.query_id, first.match_id)
    assert update.num_inliers > 0


def test_the_recent_past_never_matches(bench):
    drive = Drive(bench(search__exclude_s=5.0))
    for second in range(1, 5):
        drive.see(1, second)
    assert not drive.closures


def test_path_markers_and_diagnostics_show_what_happened(bench):
    drive = Drive(bench())
    paths = drive.bench.listen(Path, 'keyframes', LATCHED_QOS)
    markers = drive.bench.listen(MarkerArray, 'loop_closure_markers', LATCHED_QOS)
    diagnostics = drive.bench.listen(DiagnosticArray, '/diagnostics')
    for second, seed in enumerate((1, 2, 3, 4, 5, 1), 1):
        drive.see(seed, second, float(second))
    drive.bench.spin_until(lambda: paths and len(paths[-1].poses) == 6)
    drive.bench.spin_until(lambda: markers and any(m.points for m in markers[-1].markers))
    assert paths[-1].header.frame_id == markers[-1].markers[0].header.frame_id == 'odom'

    def facts():
        return {v.key: v.value for v in diagnostics[-1].status[0].values} if diagnostics else {}

    drive.bench.spin_until(lambda: facts().get('keyframes') == '6')
    assert int(facts()['image messages']) >= 6
    assert int(facts()['loop closures']) >= 1
    assert float(facts()['descriptor p50 [ms]']) > 0
    assert facts()['calibration of the camera'] == 'unknown: no camera_info'
    drive.bench.call(SetBool, 'vpr/pause', SetBool.Request(data=True))
    drive.bench.spin_until(lambda: 'paused' in diagnostics[-1].status[0].message)
    assert diagnostics[-1].status[0].level == DiagnosticStatus.WARN


def test_descriptors_are_published_on_request(bench):
    drive = Drive(bench(publish_descriptors=True))
    descriptors = drive.bench.listen(KeyframeDescriptor, 'keyframe_descriptor')
    drive.see(1, 1)
    drive.bench.spin_until(lambda: descriptors)
    assert np.linalg.norm(descriptors[0].data) == pytest.approx(1.0, abs=1e-5)
    assert descriptors[0].model_id == drive.bench.node.detector.model_id


def test_services(bench, tmp_path):
    drive = Drive(bench())
    for second, seed in enumerate((1, 2, 3, 4, 5, 1), 1):
        drive.see(seed, second, float(second))
    closures = drive.bench.call(
        GetLoopClosures, 'vpr/get_loop_closures', GetLoopClosures.Request()
    )
    assert [c.match_id for c in closures.closures][:1] == [drive.places[0].keyframe_id]

    request = RecognizePlace.Request(image=image_message(scene(3), 99 * FRAME_NS))
    known = drive.bench.call(RecognizePlace, 'vpr/recognize_place', request)
    assert known.success
    assert known.candidates[0].match_id == drive.places[2].keyframe_id

    folder = str(tmp_path / 'map')
    saved = drive.bench.call(SaveMap, 'vpr/save_map', SaveMap.Request(path=folder))
    assert (saved.success, saved.keyframes) == (True, 6), saved.message
    for nowhere in ('/dev/null/x', '', str(tmp_path / 'mapp')):
        refused = drive.bench.call(LoadMap, 'vpr/load_map', LoadMap.Request(path=nowhere))
        assert not refused.success and refused.keyframes == 6

    drive.bench.call(SetBool, 'vpr/pause', SetBool.Request(data=True))
    assert drive.bench.node.paused
    drive.bench.call(SetBool, 'vpr/pause', SetBool.Request(data=False))
    assert drive.bench.call(Trigger, 'vpr/reset', Trigger.Request()).success
    assert drive.see(1, 20).is_new

    loaded = drive.bench.call(LoadMap, 'vpr/load_map', LoadMap.Request(path=folder))
    assert (loaded.success, loaded.keyframes) == (True, 6), loaded.message
    place = drive.see(4, 2)  # an older stamp: the loaded map's sessions are another run
    assert place.place_id == drive.places[3].place_id
    again = drive.bench.call(LoadMap, 'vpr/load_map', LoadMap.Request(path=folder))
    assert (again.success, again.keyframes) == (True, 7), again.message


def test_a_read_only_map_recognises_and_stores_nothing(bench, tmp_path):
    folder = str(tmp_path / 'map')
    drive = Drive(bench(map_path=folder))
    stored = [drive.see(seed, second) for second, seed in enumerate((1, 2, 3), 1)]
    drive.bench.node.close()
    drive = Drive(bench(map_path=folder, read_only=True))
    place = drive.see(2, 50)
    drive.bench.spin_until(lambda: drive.closures)
    assert place.place_id == stored[1].place_id
    assert drive.closures[0].closures[0].match_id == stored[1].keyframe_id
    assert len(drive.bench.node.detector.keyframe_map) == 3
    request = GetLoopClosures.Request()
    answer = drive.bench.call(GetLoopClosures, 'vpr/get_loop_closures', request).closures
    assert [c.match_id for c in answer] == [stored[1].keyframe_id]
    assert answer[0].header.frame_id == 'camera_optical'


BROKEN = {
    'unknown encoding': lambda m: setattr(m, 'encoding', 'rgb7'),
    'zero size': lambda m: setattr(m, 'width', 0),
    'truncated': lambda m: setattr(m, 'data', m.data[:-1000]),
}


@pytest.mark.parametrize('damage', BROKEN)
def test_a_broken_image_is_counted_and_the_next_one_served(bench, damage):
    drive = Drive(bench())
    message = image_message(scene(1), FRAME_NS)
    BROKEN[damage](message)
    drive.images.publish(message)
    drive.bench.spin_until(lambda: problems(drive.bench).get('bad image') == 1)
    drive.see(1, 2)


def test_a_corrupt_jpeg_is_counted_and_the_next_one_served(bench):
    drive = Drive(bench(image_transport='compressed'), transport='compressed')
    message = jpeg_message(scene(1), FRAME_NS)
    message.data = message.data[: len(message.data) // 2]
    drive.images.publish(message)
    drive.bench.spin_until(lambda: problems(drive.bench).get('bad image') == 1)
    drive.see(1, 2)


@pytest.mark.parametrize('w', [float('nan'), 0.5])
def test_a_broken_quaternion_is_counted(bench, w):
    drive = Drive(bench())
    message = odometry_message(0.0, FRAME_NS)
    message.pose.pose.orientation.w = w
    drive.odometry.publish(message)
    drive.bench.spin_until(lambda: problems(drive.bench).get('bad odom') == 1)
    assert drive.see(1, 2).pose.orientation.w == 1.0


def test_odometry_that_stops_costs_the_pose_not_the_image(bench):
    drive = Drive(bench(max_odom_wait_s=0.1))
    drive.see(1, 1)
    drive.odometry, silent = None, drive.odometry
    place = drive.see(2, 2)
    assert place.pose.orientation.w == 0.0
    assert problems(drive.bench)['no odometry at image stamp'] == 1
    drive.odometry = silent
    assert drive.see(3, 3).pose.orientation.w == 1.0


def test_stamps_that_repeat_are_counted(bench):
    drive = Drive(bench())
    drive.see(1, 5)
    drive.images.publish(image_message(scene(2), 5 * FRAME_NS))
    drive.bench.spin_until(lambda: problems(drive.bench).get('image stamp not newer') == 1)


def test_a_looped_bag_begins_a_new_session_and_recognises_the_first_pass(bench):
    drive = Drive(bench(search__exclude_s=1000.0))
    first = [drive.see(seed, second) for second, seed in enumerate((1, 2, 3), 100)]
    again = [drive.see(seed, second) for second, seed in enumerate((1, 2, 3), 100)]
    drive.bench.spin_until(lambda: len(drive.closures) >= 3)
    closure = drive.closures[0].closures[0]
    assert [place.place_id for place in again] == [place.place_id for place in first]
    assert closure.query_session != closure.match_session
    assert problems(drive.bench)['image stamps jumped backwards'] == 1


def test_a_clock_that_is_set_makes_no_closure_with_what_was_seen_a_moment_ago(bench):
    drive = Drive(bench(search__exclude_s=20.0))
    for second, seed in enumerate((1, 2, 3), 100):
        drive.see(seed, second)
    for second, seed in ((119, 4), (120, 3)):
        drive.see(seed, second)
    # Set back by ten seconds, and then to a date that is learnt on the way.
    assert drive.see(3, 111).is_new
    assert drive.see(3, 10_000_000).is_new
    assert not drive.closures
    # What was seen longer ago than that is found again.
    drive.see(1, 10_000_030)
    drive.bench.spin_until(lambda: drive.closures)
    assert stamp_ns_from_msg(drive.closures[0].closures[0].match_stamp) == 100 * FRAME_NS
    assert problems(drive.bench) == {
        'image stamps jumped backwards': 1, 'image stamps jumped ahead': 1,
    }  # fmt: skip


def test_one_stamp_that_is_wrong_begins_no_session(bench):
    drive = Drive(bench(search__exclude_s=20.0))
    for second, seed in ((100, 1), (101, 2), (8_000_000, 3), (102, 2), (103, 1)):
        drive.see(seed, second)
    assert problems(drive.bench)['image stamp ahead'] == 1
    assert len(drive.bench.node.detector.keyframe_map.sessions) == 1
    assert not drive.closures


def test_frames_beyond_what_the_network_can_serve_are_dropped_not_queued(bench):
    drive = Drive(bench())
    drive.see(1, 1)
    picture = scene(1)
    for index in range(200):
        drive.images.publish(image_message(picture, 2 * FRAME_NS + index))
        drive.bench.executor.spin_once(timeout_sec=0.0)
    drive.see(2, 10)
    last_ns = lambda: stamp_ns_from_msg(drive.places[-1].header.stamp)  # noqa: E731
    drive.bench.spin_until(lambda: last_ns() == 10 * FRAME_NS)
    assert len(drive.places) < 100


def test_lifecycle_can_go_round_and_free_everything(bench):
    drive = Drive(bench())
    node = drive.bench.node
    drive.see(1, 1)
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert node.detector is None and node.descriptor is None
    assert node.bring_up()
    drive.bench.spin_until(lambda: drive.images.get_subscription_count() > 0)
    assert drive.see(1, 2).is_new


def test_a_second_round_leaves_one_publisher_and_no_old_path(bench):
    node = (item := bench()).node
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert node.bring_up()
    assert item.client.count_publishers('keyframes') == 1


def test_an_activation_that_fails_frees_everything(bench, tmp_path):
    override = {'qos_overrides./odom.subscription.reliability': 'perhaps'}
    node = bench(up=False, map_path=str(tmp_path / 'map'), **override).node
    for _ in range(2):
        # The second time the map's lock must be free again.
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.ERROR
        assert node.detector is None and node.descriptor is None


def test_a_setting_is_refused_while_it_would_not_act(bench):
    node = bench().node
    change = [Parameter('search.min_similarity', value=0.5)]
    assert 'read on configure' in node.set_parameters(change)[0].reason
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert node.set_parameters(change)[0].successful


def test_an_override_is_of_its_own_topic_alone(bench):
    node = bench(**{'qos_overrides./image.subscription.reliability': 'reliable'}).node
    reliability = {
        topic: node.get_subscriptions_info_by_topic(f'/{topic}')[0].qos_profile.reliability
        for topic in ('image', 'camera_info', 'depth')
    }
    assert reliability == {
        'image': ReliabilityPolicy.RELIABLE, 'camera_info': ReliabilityPolicy.BEST_EFFORT,
        'depth': ReliabilityPolicy.BEST_EFFORT,
    }  # fmt: skip


def test_a_service_that_breaks_answers_and_the_node_goes_on(bench, monkeypatch):
    drive = Drive(bench())
    drive.see(1, 1)

    def break_down(*_):
        raise ZeroDivisionError('the map is upside down')

    monkeypatch.setattr(drive.bench.node.detector, 'recognize', break_down)
    request = RecognizePlace.Request(image=image_message(scene(1), 2 * FRAME_NS))
    answer = drive.bench.call(RecognizePlace, 'vpr/recognize_place', request)
    assert not answer.success and 'upside down' in answer.message
    drive.see(2, 3)


def test_a_robot_without_odometry_is_healthy(bench):
    drive = Drive(bench(), with_odometry=False)
    diagnostics = drive.bench.listen(DiagnosticArray, '/diagnostics')
    drive.see(1, 1)
    drive.bench.spin_until(
        lambda: diagnostics and diagnostics[-1].status[0].level == DiagnosticStatus.OK
    )


@pytest.mark.parametrize(
    ('topic', 'message_type'), [('odom', Odometry), ('depth', Image), ('camera_info', CameraInfo)]
)
def test_an_input_that_somebody_publishes_and_that_is_silent_is_a_warning(
    bench, topic, message_type
):
    drive = Drive(bench(), with_odometry=False)
    diagnostics = drive.bench.listen(DiagnosticArray, '/diagnostics')
    drive.bench.publisher(message_type, topic)
    drive.bench.spin_until(
        lambda: diagnostics and f'no {topic} yet' in diagnostics[-1].status[0].message
    )
    assert diagnostics[-1].status[0].level == DiagnosticStatus.WARN


def test_depth_that_comes_after_its_image_is_waited_for():
    intake = Intake(Health(lambda text: None), NodeConfig(max_odom_wait_s=5.0))
    camera = Camera(name='c', frame_id='c')

    def depth(stamp_ns):
        return image_to_msg(np.full((4, 6), 1500, np.uint16), '16UC1', camera, stamp_ns)

    intake.on_depth(depth(FRAME_NS))
    image = image_message(scene(1), 2 * FRAME_NS)
    late = threading.Timer(0.1, intake.on_depth, [depth(2 * FRAME_NS)])
    late.start()
    frame = intake.assemble(ImageArrival(image, 2 * FRAME_NS, time.monotonic()), False)
    late.join()
    assert frame is not None and frame.depth_m is not None
    assert frame.depth_m[0, 0] == pytest.approx(1.5)


def test_depth_that_was_lost_is_not_waited_for_longer_than_depth_ever_took():
    picture = Camera(frame_id='camera_optical')
    intake = Intake(Health(lambda text: None), NodeConfig(max_odom_wait_s=5.0))

    def arrival(number):
        image = image_to_msg(scene(1), 'rgb8', picture, number * FRAME_NS)
        return ImageArrival(image, number * FRAME_NS, time.monotonic())

    def send_depth(number):
        depth = np.full((120, 160), 1.5, np.float32)
        intake.on_depth(image_to_msg(depth, '32FC1', picture, number * FRAME_NS))

    for number in range(1, 7):
        image = arrival(number)
        send_depth(number)
        assert intake.assemble(image, False).depth_m is not None
    lost = arrival(7)
    frame = intake.assemble(lost, False)
    assert frame.depth_m is None
    assert time.monotonic() - lost.arrived_s < 1.0
    # Depth that has become slow is learnt from what comes too late, and waited for again.
    time.sleep(0.3)
    send_depth(7)
    slow = arrival(8)
    late = threading.Timer(0.4, send_depth, [8])
    late.start()
    assert intake.assemble(slow, False).depth_m is not None
    late.join()


@pytest.mark.parametrize('is_drawn', [True, False])
def test_a_new_session_takes_the_old_drawing_away(is_drawn):
    trace = Trace()
    trace.add(Keyframe(1, 1, 'before', 'c', 0, np.eye(4)), 'odom')
    if is_drawn:
        assert len(trace.drawing()[0].poses) == 1
    trace.add(Keyframe(2, 2, 'after', 'c', 0), 'odom')
    path, _ = trace.drawing()
    assert path.header.frame_id == 'odom' and not path.poses
    assert trace.drawing() is None


def test_a_drawing_has_the_best_closure_of_each_query_and_is_bounded(monkeypatch):
    most = 20
    monkeypatch.setattr(visualization, 'MAX_DRAWN', most)
    trace = Trace()
    keyframes = [Keyframe(i, i, 's', 'c', 0, np.eye(4)) for i in range(3 * most)]
    for keyframe in keyframes:
        trace.add(keyframe, 'odom')
        found = Closure(keyframe, keyframes[0], 0.9, 'm', status=ClosureStatus.CANDIDATE)
        trace.add_closures([found, replace(found, rank=1)])
    rejected = replace(found, status=ClosureStatus.REJECTED)
    verified = replace(found, rank=2, status=ClosureStatus.VERIFIED)
    trace.add_closures([rejected, replace(found, rank=1), verified])
    path, markers = trace.drawing()
    assert most // 2 <= len(path.poses) <= most
    assert stamp_ns_from_msg(path.poses[-1].header.stamp) == keyframes[-1].stamp_ns
    lines = {marker.id: len(marker.points) // 2 for marker in markers.markers}
    assert lines[ClosureStatus.VERIFIED] == 1 and lines[ClosureStatus.REJECTED] == 0
    assert most // 2 <= lines[ClosureStatus.CANDIDATE] <= most


def test_odometry_of_the_camera_itself_needs_no_transform():
    intake = Intake(Health(lambda text: None), NodeConfig(max_odom_wait_s=0.1))
    message = odometry_message(1.0, FRAME_NS)
    message.child_frame_id = 'camera_optical'
    intake.on_odometry(message)
    image = image_message(scene(1), FRAME_NS)
    frame = intake.assemble(ImageArrival(image, FRAME_NS, time.monotonic()), True)
    np.testing.assert_array_equal(frame.camera.T_base_camera, np.eye(4))


def test_a_map_is_let_go_when_the_configuration_fails_after_it(bench, tmp_path):
    calibration = tmp_path / 'calibration.json'
    item = bench(up=False, map_path=str(tmp_path / 'map'), search__calibration=str(calibration))
    assert not item.node.bring_up()
    item.node.set_parameters([Parameter('search.calibration', value='')])
    assert item.node.bring_up()


@pytest.mark.parametrize(
    'parameters',
    [
        {'descriptor__device': 'abacus'},
        {'keyframes__policy': 'sometimes'},
        {'descriptor__model': 'no_such_model'},
        {'map_path': '/dev/null/map'},
    ],
)
def test_a_parameter_that_cannot_work_fails_the_configuration(bench, parameters):
    item = bench(up=False, **parameters)
    assert not item.node.bring_up()
    assert item.node.detector is None
