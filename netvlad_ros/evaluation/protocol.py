# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What counts as a revisit, printed beside every figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from netvlad_ros.config import DetectorConfig, from_dict, setting, to_dict
from netvlad_ros.errors import ConfigError

# Where the detector's own settings sit that a sequence's protocol fixes.
_DETECTOR_SETTINGS = {
    'keyframes': ('keyframes', 'policy'),
    'exclude_s': ('search', 'exclude_s'),
}


@dataclass(frozen=True)
class Protocol:
    """The ground truth of place: radius, viewing direction, and least time between visits."""

    gt_radius_m: float = setting(
        10.0, 'Two frames within this distance can show one place.',
        unit='m', minimum=0.0, maximum=1e6,
    )
    gt_angle_deg: float = setting(
        60.0, 'Largest angle between the viewing directions of a revisit.',
        unit='deg', minimum=0.0, maximum=180.0,
    )
    gt_gap_s: float = setting(
        20.0,
        'Pairs closer in time are masked in truth and in score alike; where revisits are listed, '
        'by default only those that exclude_s leaves out.',
        unit='s', minimum=0.0, maximum=1e6,
    )
    gt_ignore_radius_m: float = setting(
        0.0, 'Pairs to this distance are neither right nor wrong; 0 is 1.5 times gt_radius_m.',
        unit='m', minimum=0.0, maximum=1e6,
    )
    gt_ignore_angle_deg: float = setting(
        0.0, 'Pairs to this angle are neither right nor wrong; 0 is 1.5 times gt_angle_deg.',
        unit='deg', minimum=0.0, maximum=180.0,
    )

    @property
    def ignore_radius_m(self) -> float:
        """Distance from which on a pair is wrong."""
        return max(self.gt_ignore_radius_m or 1.5 * self.gt_radius_m, self.gt_radius_m)

    @property
    def ignore_angle_deg(self) -> float:
        """Angle from which on a pair is wrong."""
        return max(self.gt_ignore_angle_deg or 1.5 * self.gt_angle_deg, self.gt_angle_deg)


def split_protocol(
    values: Mapping[str, Any], config: DetectorConfig
) -> tuple[Protocol, DetectorConfig]:
    """Return the protocol and the detector's config with a sequence's ``protocol`` applied.

    :param values: keyframes, exclude_s and the fields of ``Protocol``.
    :raises ConfigError: a name is unknown or a value is not allowed.
    """
    own = {name: value for name, value in values.items() if name not in _DETECTOR_SETTINGS}
    known = (*_DETECTOR_SETTINGS, *to_dict(Protocol()))
    if unknown := sorted(set(own) - set(known)):
        raise ConfigError(f'unknown protocol setting {unknown[0]!r}, known: {", ".join(known)}')
    nested = to_dict(config)
    for name, (group, key) in _DETECTOR_SETTINGS.items():
        if name in values:
            nested[group][key] = values[name]
    return from_dict(Protocol, own), from_dict(DetectorConfig, nested)


def describe(protocol: Protocol, config: DetectorConfig, listed: bool) -> dict[str, Any]:
    """Return the protocol as a report prints it.

    :param listed: revisits are listed by frame, not derived from poses.
    """
    out: dict[str, Any] = {
        'keyframes': config.keyframes.policy,
        'exclude_s': config.search.exclude_s,
        'gt_gap_s': protocol.gt_gap_s,
    }
    if listed:
        return {**out, 'revisits': 'as listed in revisits.csv'}
    return {
        **out,
        'revisits': 'from poses; the angle is between viewing directions',
        'gt_radius_m': protocol.gt_radius_m,
        'gt_angle_deg': protocol.gt_angle_deg,
        'gt_ignore_radius_m': protocol.ignore_radius_m,
        'gt_ignore_angle_deg': protocol.ignore_angle_deg,
    }
