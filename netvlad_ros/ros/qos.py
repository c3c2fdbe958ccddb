# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Quality of service: sensor data in, reliable results out (REP-2003), both overridable.

A user overrides one with the parameter ``qos_overrides./TOPIC.subscription.reliability`` and
its like.
"""

from copy import copy
from typing import Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

OVERRIDABLE = QoSOverridingOptions.with_default_policies()

# The newest image is the only one that is served; odometry is needed without gaps.
IMAGE_QOS = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.BEST_EFFORT, history=HistoryPolicy.KEEP_LAST
)
ODOMETRY_QOS = QoSProfile(
    depth=100, reliability=ReliabilityPolicy.BEST_EFFORT, history=HistoryPolicy.KEEP_LAST
)
RESULT_QOS = QoSProfile(
    depth=100, reliability=ReliabilityPolicy.RELIABLE, history=HistoryPolicy.KEEP_LAST
)
# Every node that has static transforms writes its own message; tf2 keeps as many.
STATIC_TF_QOS = QoSProfile(
    depth=100,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
    history=HistoryPolicy.KEEP_LAST,
)
# A viewer that starts late still gets the last state.
LATCHED_QOS = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
    history=HistoryPolicy.KEEP_LAST,
)


def overridable(profile: QoSProfile) -> dict[str, Any]:
    """Return the arguments of a topic whose quality of service parameters may override.

    rclpy writes the overrides into the profile that it is given, so each topic gets its own.
    """
    return {'qos_profile': copy(profile), 'qos_overriding_options': OVERRIDABLE}
