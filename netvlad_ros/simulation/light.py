# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How the light changes over a drive: the sun's place and strength, clouds, the exposure."""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np

from netvlad_ros.errors import ConfigError

LIGHTS = ('changing', 'day', 'overcast', 'evening')


@dataclass(frozen=True)
class Light:
    """The light of one moment.

    :param sun: strength of the direct light; ``ambient`` is that of the sky, from all sides.
    :param tint_rgb: factors on the image's channels, the sky's included.
    :param sky: brightness of the sky dome.
    :param exposure_s: time the shutter is open; longer in weak light, with more blur.
    :param noise_grey: standard deviation of the sensor noise at middle grey, in grey levels.
    """

    sun_azimuth_rad: float
    sun_elevation_rad: float
    sun: float
    ambient: float
    sky: float
    tint_rgb: tuple[float, float, float]
    exposure_s: float
    noise_grey: float


class LightCourse:
    """The light over a drive, a function of its kind and seed.

    :param kind: changing sweeps the sun across the sky behind passing clouds; day, overcast and
        evening keep one light.
    :raises ConfigError: the kind is unknown.
    """

    def __init__(self, kind: str, seed: int) -> None:
        if kind not in LIGHTS:
            raise ConfigError(f'light is {kind!r}, allowed: {", ".join(LIGHTS)}')
        rng = np.random.default_rng((seed, 202))
        self._kind = kind
        self._azimuth_rad = float(rng.uniform(0.0, 2 * math.pi))
        self._cloud_phases = rng.uniform(0.0, 2 * math.pi, 3)

    def at(self, fraction: float) -> Light:
        """Return the light at a fraction in [0, 1] of the drive."""
        if self._kind == 'day':
            return self._light(0.4, 48.0, 1.0)
        if self._kind == 'overcast':
            return self._light(0.4, 50.0, 0.06)
        if self._kind == 'evening':
            return self._light(0.9, 14.0, 0.8)
        angles = 2 * math.pi * fraction * np.array([1.3, 2.9, 5.3]) + self._cloud_phases
        cloud = 0.5 + 0.5 * float(np.sin(angles) @ [0.5, 0.35, 0.15])
        elevation = 18.0 + 40.0 * math.sin(math.pi * (0.12 + 0.8 * fraction))
        return self._light(fraction, elevation, 1.0 - 0.85 * cloud)

    def _light(self, sweep: float, elevation_deg: float, sunshine: float) -> Light:
        """Return the light for a sun that has swept so far and shines so strongly, 0 to 1."""
        high = float(np.clip(elevation_deg / 45.0, 0.2, 1.0))
        warm = (1.0 - high) * sunshine
        # A clear sky gives hard light with dark shades, clouds give soft light from all sides.
        ambient = 0.56 + 0.14 * high + 0.12 * (1.0 - sunshine)
        # The camera adapts to the light, but not wholly.
        gain = 0.95 + 0.12 * sunshine * high - 0.12 * (1.0 - high)
        blue = 1.04 - 0.3 * warm - 0.05 * sunshine
        return Light(
            sun_azimuth_rad=self._azimuth_rad + math.radians(150.0) * sweep,
            sun_elevation_rad=math.radians(elevation_deg),
            sun=0.85 * sunshine * (0.6 + 0.4 * high),
            ambient=ambient,
            sky=0.6 + 0.4 * high * (0.6 + 0.4 * sunshine),
            tint_rgb=(gain * (1.0 + 0.14 * warm), gain, gain * blue),
            exposure_s=0.008 + 0.012 * (1.0 - high),
            noise_grey=1.5 + 2.0 * (1.0 - high),
        )
