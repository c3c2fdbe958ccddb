# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Bridges over real DDS: what a backend gets for the closures that the node publishes."""

import importlib.util
import signal
import sys
import time
from types import SimpleNamespace

from geometry_msgs.msg import PoseWithCovarianceStamped
import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import Float64MultiArray
from test_processes import Process

from netvlad_msgs.msg import LoopClosure, LoopClosureArray
from netvlad_ros.errors import ConfigError
from netvlad_ros.ros import qos
from netvlad_ros.ros.bridges import closure_bridge
from netvlad_ros.ros.bridges.closure_bridge import ClosureBridge, main
from netvlad_ros.ros.conversions import pose_from_msg, pose_to_msg, stamp_ns_to_msg

TIMEOUT_S = 30.0


@pytest.fixture
def context():
    context = rclpy.context.Context()
    rclpy.init(context=context)
    yield context
    rclpy.shutdown(context=context)


def closure(query_s, status, match_session='now', w=1.0, query_session='now'):
    message = LoopClosure(
        status=status, query_session=query_session, match_session=match_session
    )
    message.query_stamp = stamp_ns_to_msg(int(query_s * 1e9))
    message.match_stamp = stamp_ns_to_msg(2_250_000_000)
    message.match_odom_pose.position.x = 7.0
    message.match_odom_pose.orientation.w = w
    return message


def make_bridge(context, name, **parameters):
    values = {'bridges': [name], **parameters}
    overrides = [rclpy.parameter.Parameter(key, value=value) for key, value in values.items()]
    return ClosureBridge(context=context, parameter_overrides=overrides)


def bridged(context, name, topic, kind, closures, count, **parameters):
    """Return what a bridge publishes, up to the answer to a last closure."""
    bridge = make_bridge(context, name, **parameters)
    client = rclpy.create_node('backend', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(bridge)
    executor.add_node(client)
    received = []
    client.create_subscription(kind, topic, received.append, qos.RESULT_QOS)
    publisher = client.create_publisher(LoopClosureArray, 'loop_closures', qos.RESULT_QOS)
    end_s = time.monotonic() + TIMEOUT_S

    def spin_until(condition):
        while not condition():
            assert time.monotonic() < end_s, f'{len(received)} messages of {count}'
            executor.spin_once(timeout_sec=0.1)

    spin_until(
        lambda: publisher.get_subscription_count() and client.count_publishers(topic)
        and bridge.count_subscribers(topic)
    )
    for item in closures:
        publisher.publish(LoopClosureArray(closures=[item]))
    spin_until(lambda: len(received) >= count)
    executor.shutdown()
    bridge.destroy_node()
    client.destroy_node()
    return received


def test_lio_sam_gets_the_two_stamps_once(context):
    closures = [
        closure(50.0, LoopClosure.STATUS_CANDIDATE),
        closure(51.0, LoopClosure.STATUS_REJECTED),
        closure(52.0, LoopClosure.STATUS_VERIFIED, match_session='before'),
        closure(60.5, LoopClosure.STATUS_CONSISTENT),
        closure(60.5, LoopClosure.STATUS_VERIFIED),
        closure(61.0, LoopClosure.STATUS_VERIFIED),
    ]
    topic = 'lio_loop/loop_closure_detection'
    received = bridged(context, 'lio_sam', topic, Float64MultiArray, closures, 2)
    assert [list(message.data) for message in received] == [[60.5, 2.25], [61.0, 2.25]]


def test_initialpose_is_the_stored_pose_of_an_earlier_session(context):
    verified = LoopClosure.STATUS_VERIFIED
    closures = [
        closure(50.0, verified),
        closure(51.0, verified, match_session='before', w=0.0),
        closure(52.0, LoopClosure.STATUS_CONSISTENT, match_session='before'),
        closure(53.0, verified, match_session='before'),
        closure(54.0, verified, match_session='before'),
        closure(54.5, verified, match_session='now', query_session='after a clock was set'),
        closure(55.0, verified, match_session='before', query_session='after a reset'),
    ]
    message, after_reset = bridged(
        context, 'initialpose', 'initialpose', PoseWithCovarianceStamped, closures, 2
    )
    assert after_reset.header.stamp.sec == 55
    assert (message.header.stamp.sec, message.header.frame_id) == (53, 'map')
    assert message.pose.pose.position.x == 7.0
    assert message.pose.covariance[0] == 1.0
    assert message.pose.covariance[35] == pytest.approx(0.09)


def metric(query_s, status=LoopClosure.STATUS_VERIFIED, **fields):
    """Return a closure that was measured: the camera moved 2 m along its optical axis."""
    message = closure(query_s, status, **fields)
    message.header.frame_id = message.match_camera = 'camera_optical'
    message.transform_kind = LoopClosure.TRANSFORM_METRIC
    message.match_t_query.pose = pose_to_msg(translation(0.0, 0.0, 2.0))
    message.match_t_query.covariance = np.diag([0.01, 0.02, 0.03, 0.04, 0.05, 0.06]).ravel()
    message.query_odom_pose = pose_to_msg(translation(9.5, 0.0, 0.0))
    return message


def translation(x_m, y_m, z_m):
    T = np.eye(4)
    T[:3, 3] = (x_m, y_m, z_m)
    return T


# A camera that looks ahead, 0.3 m before the base.
LOOKING_AHEAD = [0.3, 0.0, 0.0, -0.5, 0.5, -0.5, 0.5]


@pytest.mark.parametrize(
    ('reader', 'keys', 'topic'),
    [
        ('hydra', ('query', 'match'), 'external_loop_closures'),
        ('kimera', ('match', 'query'), 'pose_graph_loop_closures'),
    ],
)
def test_pose_graph_edge_is_the_pose_between_bases(context, reader, keys, topic):
    msgs = pytest.importorskip(
        'pose_graph_tools_msgs.msg', reason='pose_graph_tools_msgs is not built'
    )
    closures = [
        closure(50.0, LoopClosure.STATUS_VERIFIED),
        metric(51.0, LoopClosure.STATUS_CONSISTENT),
        metric(52.0, match_session='before'),
        metric(60.5),
        metric(60.5),
        metric(61.0),
    ]
    parameters = {'base_camera_pose': LOOKING_AHEAD, 'robot_id': 3}
    first, second = bridged(
        context, reader, topic, msgs.PoseGraph, closures, 2, **parameters
    )
    (edge,) = first.edges
    stamps_ns = {'query': 60_500_000_000, 'match': 2_250_000_000}
    assert (edge.key_from, edge.key_to) == tuple(stamps_ns[name] for name in keys)
    assert second.edges[0].key_to in (61_000_000_000, 2_250_000_000)
    assert (edge.robot_from, edge.robot_to, edge.type) == (3, 3, msgs.PoseGraphEdge.LOOPCLOSE)
    assert np.allclose(pose_from_msg(edge.pose), translation(2.0, 0.0, 0.0))
    # Along the axes of the base: ahead is the depth of the camera.
    assert np.allclose(np.diag(np.reshape(edge.covariance, (6, 6)))[[0, 3, 5]], [0.03, 0.06, 0.05])
    assert not first.nodes and first.header.frame_id == 'base_link'


def test_closures_that_wait_for_a_transform_wait_once_and_not_for_ever(context, monkeypatch):
    monkeypatch.setattr(closure_bridge, 'MAX_WAITING', 3)
    bridge = make_bridge(context, 'lio_sam')
    bridge._mounting = SimpleNamespace(base_frame_id='base_link', lookup=lambda frame_id: None)
    bridge._send = {name: bridge._linked(pytest.fail) for name in ('hydra', 'kimera')}
    bridge._minimum = dict.fromkeys(bridge._send, LoopClosure.STATUS_VERIFIED)
    broken = metric(69.0)
    broken.match_t_query.pose.orientation.w = 7.0
    bridge._on_closures(LoopClosureArray(closures=[broken, *map(metric, (70, 71, 72, 73))]))
    for _ in range(5):
        bridge._try_again()
    assert [c.query_stamp.sec for c in bridge._waiting.values()] == [71, 72, 73]
    bridge.destroy_node()


class Rtabmap:
    """What RTAB-Map answers: a node a second, five more with each call; some links refused."""

    def __init__(self, node, msgs, srvs, refuse_below):
        self.msgs, self.refuse_below = msgs, refuse_below
        self.requests, self.links, self.calls = [], [], 0
        node.create_service(srvs.AddLink, 'rtabmap/add_link', self.add_link)
        node.create_service(srvs.GetMap, 'rtabmap/get_map_data', self.get_map_data)

    def add_link(self, request, response):
        """Answer nothing, as RTAB-Map does."""
        self.requests.append(request.link)
        if request.link.from_id >= self.refuse_below:
            self.links.append(request.link)
        return response

    def get_map_data(self, request, response):
        """Return nodes and links without images."""
        assert request.graph_only
        self.calls += 1
        for second in range(1, 5 * self.calls + 1):
            node = self.msgs.Node(id=second, stamp=second + 0.125)
            node.pose = pose_to_msg(translation(float(second), 0.0, 0.0))
            response.data.nodes.append(node)
        response.data.graph.links = self.links
        return response


def rtabmap_run(context, closures, refuse_below, done):
    """Return the stand-in and the bridge after it has sent closures."""
    msgs = pytest.importorskip('rtabmap_msgs.msg', reason='rtabmap_msgs is not installed')
    srvs = pytest.importorskip('rtabmap_msgs.srv', reason='rtabmap_msgs is not installed')
    client = rclpy.create_node('rtabmap', context=context)
    rtabmap = Rtabmap(client, msgs, srvs, refuse_below)
    bridge = make_bridge(context, 'rtabmap', base_camera_pose=LOOKING_AHEAD)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(bridge)
    executor.add_node(client)
    publisher = client.create_publisher(LoopClosureArray, 'loop_closures', qos.RESULT_QOS)
    end_s = time.monotonic() + TIMEOUT_S
    sent = False
    while not done(bridge):
        assert time.monotonic() < end_s
        executor.spin_once(timeout_sec=0.1)
        if not sent and publisher.get_subscription_count():
            publisher.publish(LoopClosureArray(closures=closures))
            sent = True
    executor.shutdown()
    bridge.destroy_node()
    client.destroy_node()
    return rtabmap, bridge


def test_rtabmap_gets_a_link_between_its_nodes_and_is_seen_to_take_it(context):
    unmeasured = closure(8.0, LoopClosure.STATUS_VERIFIED)
    closures = [unmeasured, metric(9.5), metric(9.5), metric(60.0)]
    closures[1].match_odom_pose = closures[2].match_odom_pose = pose_to_msg(
        translation(2.125, 0.0, 0.0)
    )
    rtabmap, bridge = rtabmap_run(context, closures, 0, lambda b: b.rtabmap.taken)
    # The closure of 60 s still waits for a node; 9.5 s is nearest to that of 9.125 s.
    (link,) = rtabmap.requests
    assert (link.from_id, link.to_id, link.type) == (2, 9, 1)
    # From node 2 by 0.125 m to the match, by 2 m to the query, back by 0.5 m to node 9.
    t = link.transform.translation
    assert (t.x, t.y, t.z) == pytest.approx((0.125 + 2.0 - 0.5, 0.0, 0.0))
    assert link.transform.rotation.w == pytest.approx(1.0)
    information = np.reshape(link.information, (6, 6))
    assert information[0, 0] == pytest.approx(1 / 0.03)
    assert (bridge.rtabmap.taken, bridge.rtabmap.refused) == ([(2, 9)], [])


def test_rtabmap_is_seen_to_refuse_a_link(context):
    message = metric(9.5)
    message.match_odom_pose = pose_to_msg(translation(2.125, 0.0, 0.0))
    _, bridge = rtabmap_run(context, [message], 5, lambda b: b.rtabmap.refused)
    assert (bridge.rtabmap.taken, bridge.rtabmap.refused) == ([], [(2, 9)])


@pytest.mark.parametrize(
    ('name', 'package', 'install'),
    [
        ('hydra', 'pose_graph_tools_msgs', 'github.com/MIT-SPARK/pose_graph_tools'),
        ('rtabmap', 'rtabmap_msgs', 'apt install ros-$ROS_DISTRO-rtabmap-msgs'),
    ],
)
def test_missing_message_package_is_named_in_one_line(name, package, install, monkeypatch, capfd):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda n: None if n == package else find_spec(n)
    )
    assert main(['--ros-args', '-p', f'bridges:=[{name}]']) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if 'cannot start' in line]
    assert package in line and install in line


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_bridge_ends_cleanly(number, tmp_path):
    process = Process([sys.executable, '-m', 'netvlad_ros.ros.bridges.closure_bridge'], tmp_path)
    process.wait_for('sends loop closures to lio_sam')
    assert process.end(number) == 0, process.output
    assert 'Traceback' not in process.output


def test_unknown_bridge_is_named(context):
    overrides = [rclpy.parameter.Parameter('bridges', value=['gmapping'])]
    with pytest.raises(ConfigError, match="'gmapping', allowed: lio_sam, initialpose"):
        ClosureBridge(context=context, parameter_overrides=overrides)
