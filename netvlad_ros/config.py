# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Every setting of the detector, once: default, unit, range and description.

The ROS parameters (``group.name``), ``config/vpr.yaml``, the command line's options and the
``config`` field of a report are all made from these dataclasses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
import math
from typing import Any, Optional, TypeVar, get_type_hints

from netvlad_ros.errors import ConfigError

T = TypeVar('T')


def setting(
    default: Any,
    description: str,
    *,
    unit: str = '',
    minimum: Optional[float] = None,
    maximum: Optional[float] = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Return a dataclass field that knows its unit, its range (inclusive) and its meaning."""
    return field(
        default=default,
        metadata={
            'description': description,
            'unit': unit,
            'minimum': minimum,
            'maximum': maximum,
            'choices': choices,
        },
    )


@dataclass(frozen=True)
class DescriptorConfig:
    """Which network turns an image into a vector, and where it runs."""

    model: str = setting(
        'default', "Model bundle: a file, or a name that 'netvlad models list' shows."
    )
    device: str = setting('auto', 'Where inference runs: auto, cpu, cuda or cuda:N.')
    runtime: str = setting(
        'auto',
        'Inference engine; auto takes the fastest installed one that agrees with torch.',
        choices=('auto', 'torch', 'onnx', 'openvino'),
    )
    precision: str = setting(
        'auto',
        'Arithmetic of the backbone; auto is fp16 on a GPU and fp32 on a CPU.',
        choices=('auto', 'fp32', 'bf16', 'fp16'),
    )
    threads: int = setting(
        0, 'CPU threads for inference, 0 leaves the choice to the engine.', minimum=0, maximum=256
    )


@dataclass(frozen=True)
class KeyframeConfig:
    """When a frame becomes a keyframe: enough motion, or enough time, since the last one."""

    policy: str = setting(
        'motion',
        'motion keeps a frame after enough motion or time; every_frame keeps all.',
        choices=('motion', 'every_frame'),
    )
    min_distance_m: float = setting(
        0.5, 'Keep a frame after this much travel since the last keyframe.',
        unit='m', minimum=0.0, maximum=1000.0,
    )
    min_angle_deg: float = setting(
        15.0, 'Keep a frame after this much rotation since the last keyframe.',
        unit='deg', minimum=0.0, maximum=180.0,
    )
    min_interval_s: float = setting(
        0.1, 'Never keep two keyframes closer in time than this.',
        unit='s', minimum=0.0, maximum=3600.0,
    )
    no_odom_interval_s: float = setting(
        1.0, 'Without odometry, keep a frame after this much time.',
        unit='s', minimum=0.0, maximum=3600.0,
    )


@dataclass(frozen=True)
class SearchConfig:
    """Which stored keyframes may match a query, and how alike they must be."""

    max_candidates: int = setting(
        10, 'Candidates taken from the index for each query.', minimum=1, maximum=1000
    )
    exclude_s: float = setting(
        20.0, "Keyframes of the query's own session younger than this never match.",
        unit='s', minimum=0.0, maximum=86400.0,
    )
    min_similarity: float = setting(
        0.5, "Least similarity of a loop closure. The default is the default model's; "
        "'netvlad models info' and 'netvlad evaluate' recommend one for another.",
        minimum=-1.0, maximum=1.0,
    )
    calibration: str = setting(
        '', "Calibration file of 'netvlad evaluate' for the probability of closures; empty: none."
    )


@dataclass(frozen=True)
class ConsistencyConfig:
    """Evidence from more than one query, and from odometry where it is trusted."""

    neighbourhood_keyframes: int = setting(
        5, 'Keyframes this close in order to a match show the same place.',
        unit='keyframes', minimum=1, maximum=1000,
    )
    neighbourhood_m: float = setting(
        3.0, 'Keyframes this close to a match in odometry show the same place.',
        unit='m', minimum=0.0, maximum=1000.0,
    )
    min_support: int = setting(
        3, 'A closure is CONSISTENT when this many consecutive queries agree; 1 asks for none.',
        unit='queries', minimum=1, maximum=100,
    )
    max_misses: int = setting(
        2, 'Support starts anew after this many consecutive queries without agreement.',
        unit='queries', minimum=1, maximum=100,
    )
    sequence_length: int = setting(
        1, 'Search with this many consecutive descriptors together; 1 uses the newest alone.',
        unit='keyframes', minimum=1, maximum=50,
    )
    stationary_distance_m: float = setting(
        0.2, 'No further closure until the robot moved this far or turned; 0 repeats them.',
        unit='m', minimum=0.0, maximum=100.0,
    )
    stationary_angle_deg: float = setting(
        10.0, 'No further closure until the robot turned this much or moved; 0 repeats them.',
        unit='deg', minimum=0.0, maximum=180.0,
    )
    gate_drift: float = setting(
        0.1, 'Reject what odometry rules out even with this drift per metre travelled; look-alike '
        'places need it. 0 turns the gate off, as for odometry that may jump.',
        minimum=0.0, maximum=1.0,
    )
    gate_base_m: float = setting(
        5.0, 'Distance the odometry gate always allows, in addition to drift.',
        unit='m', minimum=0.0, maximum=1000.0,
    )


@dataclass(frozen=True)
class VerificationConfig:
    """Local features, robust geometry, and how much of both makes a closure VERIFIED."""

    enabled: bool = setting(True, 'Check the geometry of closures and measure their pose.')
    features: str = setting(
        'rootsift', 'Local features; orb is faster and weaker.', choices=('rootsift', 'orb')
    )
    max_features: int = setting(
        800, 'Local features kept per keyframe.', minimum=50, maximum=10000
    )
    feature_width_px: int = setting(
        320, 'Wider images are reduced to this width before features are found; 0 never.',
        unit='px', minimum=0, maximum=10000,
    )
    enlarge_below_px: int = setting(
        400, 'Images narrower than this are enlarged before features are found; 0 never.',
        unit='px', minimum=0, maximum=4000,
    )
    max_candidates: int = setting(
        10, 'Candidates checked for each query; the best by geometry wins.',
        minimum=1, maximum=100,
    )
    match_ratio: float = setting(
        0.8, 'A match is kept when the second best is this much farther (Lowe).',
        minimum=0.1, maximum=1.0,
    )
    max_error_px: float = setting(
        1.5, 'Most error of an inlier, in pixels of the image that features are found in.',
        unit='px', minimum=0.1, maximum=100.0,
    )
    min_inliers: int = setting(
        8, 'Inliers that a VERIFIED closure needs at least.', minimum=5, maximum=10000
    )
    min_score: float = setting(
        12.0, "Score that a VERIFIED closure needs at least; 'netvlad evaluate' recommends one.",
        minimum=0.0, maximum=1e6,
    )
    views_in_memory: int = setting(
        200, 'Keyframes whose features stay in memory, about 0.25 MB each; older ones are seen '
        'through their thumbnails.',
        unit='keyframes', minimum=1, maximum=100000,
    )
    odometry_noise: float = setting(
        0.02, 'Error of the distance that odometry measures between neighbouring keyframes.',
        minimum=0.0, maximum=1.0,
    )
    time_budget_s: float = setting(
        2.0, 'A check that takes longer ends as REJECTED with the reason TIME_BUDGET.',
        unit='s', minimum=0.001, maximum=60.0,
    )


@dataclass(frozen=True)
class PlaceConfig:
    """How large a place is."""

    radius_m: float = setting(
        2.0, 'Without a match, keyframes this near the one that opened a place belong to it.',
        unit='m', minimum=0.0, maximum=1000.0,
    )


@dataclass(frozen=True)
class MapConfig:
    """How the map keeps keyframes and how it searches them."""

    durability: str = setting(
        'normal',
        'What a stored keyframe survives: normal the end of the process, full a power cut too.',
        choices=('normal', 'full'),
    )
    dtype: str = setting(
        'float32',
        'Storage of descriptors in a new map; float16 halves the disk and costs no recall.',
        choices=('float32', 'float16'),
    )
    index: str = setting(
        'auto',
        'exact compares with every keyframe; ivf_int8 and ivf_pq look at the nearest clusters of '
        'compressed codes and rank the best again exactly; auto chooses from the budgets below.',
        choices=('auto', 'exact', 'ivf_int8', 'ivf_pq'),
    )
    memory_budget_mb: float = setting(
        1024.0, 'Memory that the index may take; auto compresses beyond it.',
        unit='MB', minimum=1.0, maximum=1e6,
    )
    latency_budget_ms: float = setting(
        50.0, 'Time that one search may take; auto stops comparing with every keyframe beyond it.',
        unit='ms', minimum=0.1, maximum=1e5,
    )
    threads: int = setting(
        0, 'CPU threads of one search, 0 takes all cores.', minimum=0, maximum=256,
    )
    visit_gap_s: float = setting(
        20.0, 'A keyframe this much younger than the last one of its place is a new visit.',
        unit='s', minimum=0.0, maximum=86400.0,
    )
    robot: str = setting(
        '', 'Name of this robot in a map that several share; the name of the host by default.'
    )
    thumbnail_px: int = setting(
        320, 'Longer side of the stored JPEG of each keyframe, 0 stores none.',
        unit='px', minimum=0, maximum=4096,
    )


@dataclass(frozen=True)
class DetectorConfig:
    """All settings of one ``LoopClosureDetector``."""

    descriptor: DescriptorConfig = DescriptorConfig()
    keyframes: KeyframeConfig = KeyframeConfig()
    search: SearchConfig = SearchConfig()
    map: MapConfig = MapConfig()
    places: PlaceConfig = PlaceConfig()
    consistency: ConsistencyConfig = ConsistencyConfig()
    verification: VerificationConfig = VerificationConfig()


def validate(config: Any, prefix: str = '') -> None:
    """Check every setting of a config dataclass against its range and choices.

    :raises ConfigError: naming the setting, its value and what is allowed.
    """
    for item in fields(config):
        value, name = getattr(config, item.name), f'{prefix}{item.name}'
        if is_dataclass(value):
            validate(value, f'{name}.')
            continue
        low, high = item.metadata.get('minimum'), item.metadata.get('maximum')
        if choices := item.metadata.get('choices'):
            if value not in choices:
                raise ConfigError(f'{name} is {value!r}, allowed: {", ".join(choices)}')
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            too_low = low is not None and value < low
            too_high = high is not None and value > high
            if too_low or too_high or math.isnan(value):
                raise ConfigError(f'{name} is {value!r}, allowed: {low} to {high}')


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config dataclass as nested dicts of plain values."""
    return asdict(config)


def from_dict(cls: type[T], values: Mapping[str, Any], prefix: str = '') -> T:
    """Return a validated config of ``cls`` with the given nested values over the defaults.

    :raises ConfigError: a name is unknown, or a value has the wrong type or range.
    """
    hints = get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(
            f'unknown setting {prefix}{unknown[0]!s}, known: {", ".join(sorted(hints))}'
        )
    changes: dict[str, Any] = {}
    for name, value in values.items():
        hint = hints[name]
        if isinstance(hint, type) and is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise ConfigError(f'{prefix}{name} must be a group of settings, got {value!r}')
            changes[name] = from_dict(hint, value, f'{prefix}{name}.')
            continue
        if hint is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not hint:
            raise ConfigError(f'{prefix}{name} must be {hint.__name__}, got {value!r}')
        changes[name] = value
    config = cls(**changes)
    validate(config, prefix)
    return config
