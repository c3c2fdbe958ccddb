# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Bridges over real DDS: what a backend gets for the closures that the node publishes."""

import time

from geometry_msgs.msg import PoseWithCovarianceStamped
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import Float64MultiArray

from netvlad_msgs.msg import LoopClosure, LoopClosureArray
from netvlad_ros.errors import ConfigError
from netvlad_ros.ros import qos
from netvlad_ros.ros.bridges.closure_bridge import ClosureBridge
from netvlad_ros.ros.conversions import stamp_ns_to_msg

TIMEOUT_S = 30.0


@pytest.fixture
def context():
    context = rclpy.context.Context()
    rclpy.init(context=context)
    yield context
    rclpy.shutdown(context=context)


def closure(query_s, status, match_session='now', w=1.0):
    message = LoopClosure(status=status, query_session='now', match_session=match_session)
    message.query_stamp = stamp_ns_to_msg(int(query_s * 1e9))
    message.match_stamp = stamp_ns_to_msg(2_250_000_000)
    message.match_odom_pose.position.x = 7.0
    message.match_odom_pose.orientation.w = w
    return message


def bridged(context, name, topic, kind, closures, count):
    """Return what a bridge publishes, up to the answer to a last closure."""
    overrides = [rclpy.parameter.Parameter('bridges', value=[name])]
    bridge = ClosureBridge(context=context, parameter_overrides=overrides)
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
    ]
    (message,) = bridged(
        context, 'initialpose', 'initialpose', PoseWithCovarianceStamped, closures, 1
    )
    assert (message.header.stamp.sec, message.header.frame_id) == (53, 'map')
    assert message.pose.pose.position.x == 7.0
    assert message.pose.covariance[0] == 1.0
    assert message.pose.covariance[35] == pytest.approx(0.09)


def test_unknown_bridge_is_named(context):
    overrides = [rclpy.parameter.Parameter('bridges', value=['gmapping'])]
    with pytest.raises(ConfigError, match="'gmapping', allowed: lio_sam, initialpose"):
        ClosureBridge(context=context, parameter_overrides=overrides)
