# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Numbers of the command line that must be above zero: ``type=`` of their options."""

from __future__ import annotations

import argparse
import math


def positive_int(text: str) -> int:
    """Return a whole number above 0."""
    return int(_positive(int(text), text))


def positive_float(text: str) -> float:
    """Return a finite number above 0."""
    return _positive(float(text), text)


def _positive(value: float, text: str) -> float:
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f'must be above 0, got {text}')
    return value
