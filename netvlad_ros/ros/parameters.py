# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""ROS parameters made from the config dataclasses: one source of defaults, units and ranges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from netvlad_ros.config import from_dict, setting
from netvlad_ros.served_stamps import TIME_JUMP_S

T = TypeVar('T')


@dataclass(frozen=True)
class NodeConfig:
    """Settings of the node that the core has no use for."""

    autostart: bool = setting(
        True, 'Configure and activate at start; false leaves that to a lifecycle manager.'
    )
    image_transport: str = setting(
        'raw',
        "raw subscribes to 'image', compressed to 'image/compressed'.",
        choices=('raw', 'compressed'),
    )
    map_path: str = setting(
        '', "The map's folder, made if absent; empty keeps the map in memory only."
    )
    read_only: bool = setting(False, 'Localise in the map of map_path and store nothing.')
    session_name: str = setting('', 'A name for this run, stored in the map.')
    max_odom_wait_s: float = setting(
        0.2, 'Longest wait for odometry and depth that are newer than an image.',
        unit='s', minimum=0.0, maximum=10.0,
    )
    image_is_rectified: bool = setting(
        False,
        'The images are rectified (image_rect): of camera_info P counts, not K and D.',
    )
    time_jump_s: float = setting(
        TIME_JUMP_S,
        'Image stamps that go back by more than this begin a new session (a looped bag).',
        unit='s', minimum=0.0, maximum=3600.0,
    )
    max_depth_gap_s: float = setting(
        0.03, 'Largest difference between the stamps of an image and its depth image.',
        unit='s', minimum=0.0, maximum=1.0,
    )
    publish_descriptors: bool = setting(False, "Publish 'keyframe_descriptor' for each keyframe.")
    diagnostics_period_s: float = setting(
        1.0, 'Time between two diagnostics, in wall time.', unit='s', minimum=0.1, maximum=60.0
    )
    input_timeout_s: float = setting(
        5.0, 'Diagnostics warn when an input has been silent for this long, in wall time.',
        unit='s', minimum=0.1, maximum=3600.0,
    )


def _leaves(config: Any, prefix: str = '') -> Iterator[tuple[str, Any, Any]]:
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from _leaves(value, f'{prefix}{item.name}.')
        else:
            yield f'{prefix}{item.name}', value, item.metadata


def _descriptor(default: Any, metadata: Any) -> ParameterDescriptor:
    unit = f' [{metadata["unit"]}]' if metadata.get('unit') else ''
    descriptor = ParameterDescriptor(description=metadata['description'] + unit)
    if metadata.get('choices'):
        descriptor.additional_constraints = 'One of: ' + ', '.join(metadata['choices'])
    low, high = metadata.get('minimum'), metadata.get('maximum')
    if low is None or high is None or isinstance(default, bool):
        return descriptor
    if isinstance(default, int):
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    else:
        # `exclude_s:=20` is an integer to ROS; it means 20.0 here.
        descriptor.dynamic_typing = True
        # A step of 0 lets every value through; rclpy refuses values off the grid otherwise.
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)
        ]
    return descriptor


def declare(node: Node, default: Any) -> list[str]:
    """Declare every setting of a config dataclass as a parameter ``group.name``; return them."""
    leaves = list(_leaves(default))
    for name, value, metadata in leaves:
        node.declare_parameter(name, value, _descriptor(value, metadata))
    return [name for name, _, _ in leaves]


def read(node: Node, cls: type[T]) -> T:
    """Return a config dataclass with the node's present parameter values.

    :raises ConfigError: a value is not allowed; the message names it and what is.
    """
    values: dict[str, Any] = {}
    for name, default, _ in _leaves(cls()):
        value = node.get_parameter(name).value
        if isinstance(default, float) and isinstance(value, int):
            value = float(value)
        *groups, leaf = name.split('.')
        target = values
        for group in groups:
            target = target.setdefault(group, {})
        target[leaf] = value
    return from_dict(cls, values)
