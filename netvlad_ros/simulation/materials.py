# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Procedural materials: arrays of RGB that look like brick, plaster, stone, leaves or sky."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from netvlad_ros.simulation.mesh import Rgb
from netvlad_ros.types import Float32Array, UInt8Array

WALL_KINDS = ('brick', 'plaster', 'stone', 'concrete', 'boards', 'half_timber')

BRICKS: tuple[Rgb, ...] = ((158, 84, 62), (176, 110, 82), (130, 70, 60), (190, 160, 120),
                           (120, 96, 84), (205, 180, 150))
PLASTERS: tuple[Rgb, ...] = ((226, 208, 168), (214, 176, 140), (200, 208, 196), (232, 226, 214),
                             (184, 200, 214), (222, 178, 168), (206, 190, 120), (176, 196, 160),
                             (196, 150, 110), (150, 160, 178))
STONES: tuple[Rgb, ...] = ((178, 170, 156), (150, 146, 140), (196, 182, 152), (132, 128, 122))


def pick(rng: np.random.Generator, options: Sequence[Rgb]) -> Rgb:
    """Return one of the colours, slightly varied."""
    colour = np.array(options[int(rng.integers(len(options)))]) + rng.integers(-12, 13, 3)
    r, g, b = np.clip(colour, 0, 255).tolist()
    return r, g, b


def noise(rng: np.random.Generator, h: int, w: int, cells: Sequence[float]) -> Float32Array:
    """Return (h, w) smooth noise of mean 0: octaves with the given cell sizes in pixels.

    Larger cells weigh more, as the stains and dust of a wall do.
    """
    out = np.zeros((h, w), np.float32)
    for cell in cells:
        grid = rng.standard_normal((int(h / cell) + 3, int(w / cell) + 3)).astype(np.float32)
        out += cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC) / len(cells)
    return out


def shade(colour: Rgb, field_hw: Float32Array) -> UInt8Array:
    """Return (h, w, 3) of ``colour`` brightened by a field in grey levels."""
    image = np.asarray(colour, np.float32) + field_hw[..., None]
    return np.asarray(np.clip(image, 0, 255), dtype=np.uint8)


def _masonry(
    rng: np.random.Generator, h: int, w: int, row: int, length: int, colour: Rgb, spread: float
) -> UInt8Array:
    """Return courses of blocks with mortar joints, every second course shifted by half."""
    rows, columns = h // row + 1, w // length + 3
    tones = rng.normal(0.0, spread, (rows, columns)).astype(np.float32)
    y, x = np.arange(h)[:, None], np.arange(w)[None, :]
    course = y // row
    shifted = x + (course % 2) * (length // 2)
    field = tones[np.broadcast_to(course, (h, w)), shifted // length]
    field = field + 6.0 * noise(rng, h, w, (3, 40))
    joint = (y % row == 0) | (shifted % length == 0)
    return shade(colour, np.where(joint, 26.0 + 0.2 * field, field).astype(np.float32))


def wall(rng: np.random.Generator, kind: str, h: int, w: int, px_per_m: float) -> UInt8Array:
    """Return (h, w, 3) uint8 RGB of a bare wall.

    :param kind: one of ``WALL_KINDS``.
    """
    if kind == 'brick':
        image = _masonry(rng, h, w, max(4, round(0.09 * px_per_m)), max(8, round(0.26 * px_per_m)),
                         pick(rng, BRICKS), 16.0)
    elif kind == 'stone':
        image = _masonry(rng, h, w, round(0.42 * px_per_m), round(0.8 * px_per_m),
                         pick(rng, STONES), 13.0)
    elif kind == 'boards':
        board = round(0.2 * px_per_m)
        y = np.arange(h)[:, None] % board
        tones = rng.normal(0, 9, h // board + 1).astype(np.float32)[np.arange(h) // board][:, None]
        field = tones + np.where(y < 2, -42, 0) + 5 * noise(rng, h, w, (2, 60))
        image = shade(pick(rng, PLASTERS), field.astype(np.float32))
    else:
        colour = pick(rng, STONES if kind == 'concrete' else PLASTERS)
        image = shade(colour, 5.0 * noise(rng, h, w, (2, 6)) + 14.0 * noise(rng, h, w, (60, 160)))
        if kind == 'concrete':
            _panel_joints(image, px_per_m)
        elif kind == 'half_timber':
            _timbers(rng, image, px_per_m)
    return _weather(rng, image)


def _panel_joints(image: UInt8Array, px_per_m: float) -> None:
    h, w = image.shape[:2]
    for y in np.arange(h, 0, -3.0 * px_per_m):
        cv2.line(image, (0, int(y)), (w, int(y)), (90, 88, 86), 2)
    for x in np.arange(0, w, 2.5 * px_per_m):
        cv2.line(image, (int(x), 0), (int(x), h), (96, 94, 92), 2)


def _timbers(rng: np.random.Generator, image: UInt8Array, px_per_m: float) -> None:
    """Draw the beams of a timber-framed house over the upper floors."""
    h, w = image.shape[:2]
    beam, colour = max(3, round(0.18 * px_per_m)), pick(rng, ((84, 56, 40), (60, 44, 36)))
    floors = np.arange(h - 3.0 * px_per_m, 0, -2.7 * px_per_m)
    for y in floors:
        y1 = max(0, int(y - 2.7 * px_per_m))
        cv2.line(image, (0, int(y)), (w, int(y)), colour, beam)
        xs = np.linspace(0, w, int(rng.integers(4, 8)))
        for x0, x1 in pairwise(xs):
            cv2.line(image, (int(x0), int(y)), (int(x0), y1), colour, beam)
            if rng.random() < 0.4:
                ends = (int(x0), int(x1)) if rng.random() < 0.5 else (int(x1), int(x0))
                cv2.line(image, (ends[0], int(y)), (ends[1], y1), colour, beam - 1)


def _weather(rng: np.random.Generator, image: UInt8Array) -> UInt8Array:
    """Return the wall with streaks of rain below the roof and dirt near the ground."""
    h, w = image.shape[:2]
    streaks = cv2.resize(rng.random((4, w // 6 + 2)).astype(np.float32), (w, h))
    y = np.linspace(0.0, 1.0, h, dtype=np.float32)[:, None]
    dirt = 1.0 - 0.16 * streaks * np.exp(-4 * y) - 0.3 * np.exp(-14 * (1 - y))
    dirt = dirt - 0.05 * np.clip(noise(rng, h, w, (30, 90)), -1, 1)
    return np.asarray(np.clip(image * dirt[..., None], 0, 255), dtype=np.uint8)


def leaves(rng: np.random.Generator, size: int = 256) -> UInt8Array:
    """Return (size, size, 3) of foliage that repeats at its left and right edges."""
    greens: tuple[Rgb, ...] = ((66, 96, 42), (92, 118, 48), (120, 128, 50), (56, 84, 52),
                               (150, 110, 50))
    base = pick(rng, greens)
    image = np.full((size, size, 3), np.multiply(base, 0.45).astype(np.uint8), np.uint8)
    for _ in range(size * 6):
        x, y = (int(v) for v in rng.integers(0, size, 2))
        colour = tuple(int(v) for v in np.clip(np.multiply(base, rng.uniform(0.5, 1.6)), 0, 255))
        axes = (int(rng.integers(2, 6)), int(rng.integers(1, 4)))
        for shift in (0, size if x < 8 else -size):
            angle = float(rng.uniform(0, 180))
            cv2.ellipse(image, (x + shift, y), axes, angle, 0, 360, colour, -1)
    return image


def sky(rng: np.random.Generator, h: int = 512, w: int = 2048) -> UInt8Array:
    """Return (h, w, 3) of the sky dome: zenith at the top, hills and far roofs at the bottom."""
    elevation = np.linspace(1.0, 0.0, h, dtype=np.float32)[:, None, None]
    zenith, horizon = np.array([96, 140, 204], np.float32), np.array([206, 220, 232], np.float32)
    image = horizon + (zenith - horizon) * np.sqrt(elevation)
    image = np.broadcast_to(image, (h, w, 3)).copy()
    cloud = np.clip(noise(rng, h, w + 200, (40, 90, 180)) * 1.6 - 0.1, 0, 1)
    ramp = np.linspace(0, 1, 200, dtype=np.float32)
    cloud[:, :200] = cloud[:, :200] * ramp + cloud[:, w:] * (1 - ramp)
    cover = cloud[:, :w, None] * (1 - 0.6 * elevation)
    image = image * (1 - cover) + np.array([240, 240, 238], np.float32) * cover
    out = np.asarray(np.clip(image, 0, 255), dtype=np.uint8)
    _skyline(rng, out)
    return out


def _skyline(rng: np.random.Generator, image: UInt8Array) -> None:
    """Draw two ridges of hills and a row of far buildings and spires along the horizon."""
    h, w = image.shape[:2]
    angle = np.linspace(0, 2 * np.pi, w, endpoint=False)
    for height, colour in ((0.13, (142, 158, 172)), (0.08, (104, 124, 104))):
        ridge = sum(
            rng.uniform(0.3, 1.0) * np.sin(k * angle + rng.uniform(0, 6.28)) / k
            for k in (2, 3, 5, 9, 17)
        )
        top = h - h * height * (1.0 + 0.4 * np.asarray(ridge))
        points = np.stack([np.arange(w), top], axis=1)
        outline = np.concatenate([points, [[w, h], [0, h]]]).astype(np.int32)
        cv2.fillPoly(image, [outline], colour)
    for _ in range(60):
        x, width = int(rng.integers(w)), int(rng.integers(8, 46))
        top = h - int(h * rng.uniform(0.05, 0.17))
        tone = tuple(int(c) for c in rng.integers(96, 176) + rng.integers(-14, 14, 3))
        cv2.rectangle(image, (x, top), (x + width, h), tone, -1)
        if rng.random() < 0.3:
            tip = (x + width // 2, top - int(rng.integers(8, 40)))
            cv2.fillConvexPoly(image, np.array([(x, top), (x + width, top), tip]), (120, 70, 60))
        for wy in range(top + 3, h - 3, 6):
            for wx in range(x + 2, x + width - 3, 6):
                cv2.rectangle(image, (wx, wy), (wx + 2, wy + 2), (70, 78, 92), -1)
