# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters, config file, README and dataclasses say the same."""

from dataclasses import fields, is_dataclass
from pathlib import Path

from rclpy.parameter import Parameter
import yaml

from netvlad_ros.config import DetectorConfig
from netvlad_ros.ros import parameters
from netvlad_ros.ros.parameters import NodeConfig

ROOT = Path(__file__).resolve().parents[2]


def leaves(config, prefix=''):
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from leaves(value, f'{prefix}{item.name}.')
        else:
            yield f'{prefix}{item.name}', value, item.metadata


SETTINGS = {name: (value, meta) for c in (NodeConfig(), DetectorConfig())
            for name, value, meta in leaves(c)}  # fmt: skip


def test_every_setting_is_declared_with_its_default_unit_and_range(bench):
    node = bench(up=False).node
    undefaulted = {'descriptor.model', 'descriptor.runtime', 'keyframes.policy',
                   'search.exclude_s', 'search.min_similarity', 'diagnostics_period_s',
                   'consistency.stationary_distance_m'}  # fmt: skip
    for name, (default, meta) in SETTINGS.items():
        descriptor = node.describe_parameter(name)
        assert meta['description'] in descriptor.description
        assert meta['unit'] in descriptor.description
        ranges = [*descriptor.floating_point_range, *descriptor.integer_range]
        if meta['minimum'] is not None and not isinstance(default, bool):
            assert (ranges[0].from_value, ranges[0].to_value) == (meta['minimum'], meta['maximum'])
        if name not in undefaulted:
            assert node.get_parameter(name).value == default, name


def test_values_reach_the_config_whether_integer_or_float(bench):
    node = bench(up=False).node
    node.set_parameters([Parameter('keyframes.min_distance_m', value=3)])
    assert parameters.read(node, DetectorConfig).keyframes.min_distance_m == 3.0


def test_config_file_repeats_the_defaults_and_no_more():
    content = yaml.safe_load((ROOT / 'config' / 'vpr.yaml').read_text())['/**']['vpr']
    for group, values in content['ros__parameters'].items():
        for name, value in values.items():
            assert SETTINGS[f'{group}.{name}'][0] == value, f'{group}.{name}'
