# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""LIO-SAM: pairs of stamps, which it checks itself by ICP."""

from __future__ import annotations

from typing import Optional

from std_msgs.msg import Float64MultiArray

from netvlad_msgs.msg import LoopClosure
from netvlad_ros.ros.conversions import stamp_ns_from_msg

TOPIC = 'lio_loop/loop_closure_detection'
NS_PER_S = 1e9


def to_stamps(closure: LoopClosure) -> Optional[Float64MultiArray]:
    """Return the stamps of query and match in seconds.

    :returns: None for a closure with another session, whose stamps LIO-SAM does not know.
    """
    if closure.query_session != closure.match_session:
        return None
    stamps = (closure.query_stamp, closure.match_stamp)
    return Float64MultiArray(data=[stamp_ns_from_msg(stamp) / NS_PER_S for stamp in stamps])
