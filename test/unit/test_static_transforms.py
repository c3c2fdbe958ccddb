# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The pose of a camera on its robot, from static transforms."""

from types import SimpleNamespace as Message

import numpy as np
import pytest

from netvlad_ros.errors import InputError
from netvlad_ros.static_transforms import StaticTransforms


def transform(parent: str, child: str, x_m: float, w: float = 1.0) -> Message:
    return Message(
        header=Message(frame_id=parent), child_frame_id=child,
        transform=Message(
            translation=Message(x=x_m, y=0.0, z=0.0), rotation=Message(x=0.0, y=0.0, z=0.0, w=w)
        ),
    )  # fmt: skip


def test_frames_on_two_branches_meet_at_their_common_ancestor():
    tree = StaticTransforms()
    tree.add(Message(transforms=[
        transform('base_link', 'imu_link', 0.1), transform('base_link', 'mount', 0.5),
        transform('mount', 'optical', 0.2),
    ]))  # fmt: skip
    for base, x_m in (('base_link', 0.7), ('imu_link', 0.6), ('mount', 0.2), ('optical', 0.0)):
        T_base_optical = tree.lookup(base, 'optical')
        assert T_base_optical is not None
        np.testing.assert_allclose(T_base_optical[:3, 3], [x_m, 0.0, 0.0], atol=1e-12)
    back = tree.lookup('optical', 'base_link')
    assert back is not None and back[0, 3] == pytest.approx(-0.7)
    assert tree.lookup('odom', 'optical') is None
    assert tree.lookup('/base_link', 'optical') is not None


def test_a_broken_transform_does_not_take_the_others_with_it():
    tree = StaticTransforms()
    with pytest.raises(InputError, match="'base_link' to 'lidar'"):
        tree.add(Message(transforms=[
            transform('base_link', 'lidar', 1.0, w=0.0), transform('base_link', 'optical', 0.3),
        ]))  # fmt: skip
    assert tree.lookup('base_link', 'optical') is not None
    assert tree.lookup('base_link', 'lidar') is None


def test_a_loop_of_transforms_ends():
    tree = StaticTransforms()
    tree.add(Message(transforms=[transform('a', 'b', 1.0), transform('b', 'a', 1.0)]))
    assert tree.lookup('base_link', 'a') is None
