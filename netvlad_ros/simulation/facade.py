# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Drawn house fronts: walls with windows, doors, shops, signs, posters, pipes and graffiti.

A front is a function of its ``FacadeSpec`` alone, so two places with the same spec look alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from netvlad_ros.simulation.materials import WALL_KINDS, pick, wall
from netvlad_ros.simulation.mesh import Rgb
from netvlad_ros.simulation.painter import (
    DOORS,
    PX_PER_M,
    SIGNS,
    TRIMS,
    Painter,
    Relief,
    poster,
    word,
)
from netvlad_ros.types import UInt8Array

GROUND_FLOOR_M = 3.2
FLOOR_M = 2.8


@dataclass(frozen=True)
class FacadeSpec:
    """What a house front depends on."""

    seed: int
    width_m: float
    height_m: float


@dataclass(frozen=True)
class Facade:
    """A drawn front.

    :param texture: (H, W, 3) uint8 RGB, the top of the wall first.
    """

    spec: FacadeSpec
    texture: UInt8Array
    reliefs: tuple[Relief, ...]


def _glass(p: Painter, x0: float, z0: float, x1: float, z1: float) -> None:
    """Draw a pane: dark room, sky's reflection, and what stands or hangs behind the glass."""
    (left, bottom), (right, top) = p.px(x0, z0), p.px(x1, z1)
    pane = p.image[max(0, top):bottom, max(0, left):right]
    if pane.size == 0:
        return
    tone = np.array(pick(p.rng, ((44, 52, 62), (60, 70, 84), (36, 38, 42), (84, 98, 112))))
    ramp = np.linspace(1.5, 0.8, pane.shape[0])[:, None, None]
    pane[:] = np.clip(tone * ramp + p.rng.normal(0, 3, pane.shape[:2])[..., None], 0, 255)
    kind = p.rng.random()
    if kind < 0.3:
        cloth = pick(p.rng, ((230, 224, 210), (200, 170, 150), (170, 186, 200), (222, 210, 150)))
        share = p.rng.uniform(0.15, 0.32) * (x1 - x0)
        p.rect(x0, z0, x0 + share, z1, cloth)
        p.rect(x1 - share, z0, x1, z1, cloth)
    elif kind < 0.55:
        low = z1 - p.rng.uniform(0.2, 0.9) * (z1 - z0)
        p.rect(x0, low, x1, z1, pick(p.rng, ((210, 204, 190), (150, 140, 130), (190, 196, 190))))
        for z in np.arange(low, z1, 0.09):
            cv2.line(p.image, p.px(x0, z), p.px(x1, z), (120, 116, 110), 1)
    elif kind < 0.75:
        x = p.rng.uniform(x0 + 0.1, max(x0 + 0.11, x1 - 0.25))
        p.rect(x, z0, x + 0.2, z0 + 0.18, (150, 80, 50))
        cv2.circle(p.image, p.px(x + 0.1, z0 + 0.3), round(0.16 * PX_PER_M),
                   pick(p.rng, ((60, 110, 50), (170, 60, 90), (190, 150, 50))), -1)
    shine = np.array([p.px(x0, z0 + 0.2), p.px(x0, z0 + 0.5), p.px(x1, z1), p.px(x1, z1 - 0.2)])
    if p.rng.random() < 0.4:
        cv2.polylines(p.image, [shine.astype(np.int32)], True, (112, 122, 134), 1, cv2.LINE_AA)


@dataclass(frozen=True)
class _WindowStyle:
    """What the windows of one house have in common."""

    trim: Rgb
    shutter: Rgb
    bars: tuple[int, int]
    arched: bool
    shutters: bool
    frame_m: float


def _window(p: Painter, style: _WindowStyle, x0: float, z0: float, x1: float, z1: float) -> None:
    frame = style.frame_m
    p.rect(x0 - frame, z0 - frame, x1 + frame, z1 + frame, style.trim)
    if style.arched:
        centre, axes = p.px((x0 + x1) / 2, z1), round(((x1 - x0) / 2 + frame) * PX_PER_M)
        cv2.ellipse(p.image, centre, (axes, axes // 2), 0, 180, 360, style.trim, -1, cv2.LINE_AA)
    _glass(p, x0, z0, x1, z1)
    columns, rows = style.bars
    for k in range(1, columns):
        x = x0 + (x1 - x0) * k / columns
        cv2.line(p.image, p.px(x, z0), p.px(x, z1), style.trim, 3)
    for k in range(1, rows):
        z = z0 + (z1 - z0) * k / rows
        cv2.line(p.image, p.px(x0, z), p.px(x1, z), style.trim, 3)
    if style.shutters:
        for a, b in ((x0 - frame - 0.42, x0 - frame), (x1 + frame, x1 + frame + 0.42)):
            p.rect(a, z0, b, z1, style.shutter)
            for z in np.arange(z0 + 0.08, z1, 0.1):
                dark = tuple(int(c * 0.7) for c in style.shutter)
                cv2.line(p.image, p.px(a + 0.04, z), p.px(b - 0.04, z), dark, 1)
    p.relief(x0 - frame - 0.05, z0 - frame - 0.1, x1 + frame + 0.05, z0 - frame, 0.14, style.trim)


def _upper_floors(p: Painter, spec: FacadeSpec) -> None:
    rng = p.rng
    style = _WindowStyle(
        trim=pick(rng, TRIMS), shutter=pick(rng, DOORS), arched=bool(rng.random() < 0.25),
        bars=((1, 1), (2, 1), (2, 2), (2, 3), (1, 2), (3, 2))[int(rng.integers(6))],
        shutters=bool(rng.random() < 0.35), frame_m=float(rng.uniform(0.05, 0.14)),
    )
    width, height = rng.uniform(0.8, 1.5), rng.uniform(1.2, 1.7)
    pitch = width + rng.uniform(0.7, 1.6) + (0.8 if style.shutters else 0.0)
    columns = max(1, int((spec.width_m - 0.5) / pitch))
    centres = (np.arange(columns) - (columns - 1) / 2) * pitch + spec.width_m / 2
    balcony_column = int(rng.integers(columns)) if rng.random() < 0.5 else -1
    floor = 0
    while GROUND_FLOOR_M + floor * FLOOR_M + 0.7 + height < spec.height_m - 0.3:
        z0 = GROUND_FLOOR_M + floor * FLOOR_M + 0.7
        for column, x in enumerate(centres):
            if rng.random() < 0.07:
                continue
            _window(p, style, x - width / 2, z0, x + width / 2, z0 + height)
            if column == balcony_column:
                p.relief(x - width / 2 - 0.3, z0 - 0.75, x + width / 2 + 0.3, z0 + 0.15, 0.75,
                         style.shutter)
        if rng.random() < 0.6:
            z = GROUND_FLOOR_M + floor * FLOOR_M
            p.relief(0.0, z - 0.06, spec.width_m, z + 0.1, 0.1, style.trim)
        floor += 1


def _door(p: Painter, x: float, width: float = 1.0, height: float = 2.2) -> None:
    colour = pick(p.rng, DOORS)
    p.rect(x - 0.12, 0.0, x + width + 0.12, height + 0.14, pick(p.rng, TRIMS))
    p.rect(x, 0.0, x + width, height, colour)
    dark: Rgb = (int(colour[0] * 0.62), int(colour[1] * 0.62), int(colour[2] * 0.62))
    rows = int(p.rng.integers(1, 4))
    for row in range(rows):
        z0 = 0.2 + row * (height - 0.3) / rows
        z1 = z0 + (height - 0.3) / rows - 0.15
        for a, b in ((0.12, 0.46), (0.54, 0.88)):
            p.rect(x + a * width, z0, x + b * width, z1, dark, 2)
    if p.rng.random() < 0.5:
        _glass(p, x + 0.15 * width, height * 0.6, x + 0.85 * width, height * 0.92)
    number = str(int(p.rng.integers(1, 99)))
    p.rect(x + width + 0.2, 1.6, x + width + 0.5, 1.85, (28, 60, 120))
    p.text(number, x + width + 0.2, 1.6, x + width + 0.5, 1.85, (250, 250, 250))
    p.relief(x - 0.2, 0.0, x + width + 0.2, 0.15, 0.4, (150, 148, 144))


def _shop(p: Painter, x0: float, x1: float) -> None:
    """Draw a shop: a sign with its name, wide panes with goods, and perhaps an awning."""
    rng = p.rng
    board, ink = pick(rng, SIGNS), pick(rng, ((250, 250, 246), (30, 30, 34), (250, 220, 90)))
    if abs(sum(board) - sum(ink)) < 200:
        ink = (250, 250, 246) if sum(board) < 380 else (24, 24, 28)
    p.rect(x0, 0.0, x1, 2.5, pick(rng, TRIMS))
    pane_count = max(1, int((x1 - x0) / 1.6))
    for k in range(pane_count):
        a, b = (x0 + (x1 - x0) * (k + s) / pane_count for s in (0.05, 0.95))
        _glass(p, a, 0.5, b, 2.4)
        for _ in range(int(rng.integers(3, 9))):
            gx, gw = rng.uniform(a, b - 0.15), rng.uniform(0.08, 0.35)
            gz = 0.5 + 0.6 * int(rng.integers(0, 3))
            top = min(2.35, gz + float(rng.uniform(0.1, 0.5)))
            p.rect(gx, gz, min(b, gx + gw), top, pick(rng, SIGNS))
    p.rect(x0, 2.5, x1, 3.1, board)
    p.rect(x0, 2.5, x1, 3.1, ink, 2)
    p.text(word(rng), x0 + 0.2, 2.55, x1 - 0.2, 3.05, ink)
    if rng.random() < 0.5:
        stripe = 0.45
        for k, a in enumerate(np.arange(x0, x1 - stripe / 2, stripe)):
            colour = board if k % 2 else (240, 238, 230)
            p.relief(float(a), 2.28, float(min(a + stripe, x1)), 2.5, 0.9, colour)


def _garage(p: Painter, x0: float, x1: float) -> None:
    colour = pick(p.rng, ((170, 170, 168), (120, 60, 52), (70, 90, 110), (200, 196, 180)))
    p.rect(x0 - 0.1, 0.0, x1 + 0.1, 2.5, (110, 106, 100))
    p.rect(x0, 0.0, x1, 2.4, colour)
    for z in np.arange(0.0, 2.4, float(p.rng.uniform(0.12, 0.4))):
        cv2.line(p.image, p.px(x0, z), p.px(x1, z), tuple(int(c * 0.7) for c in colour), 2)


def _ground_floor(p: Painter, spec: FacadeSpec) -> None:
    rng, style = p.rng, None
    x = float(rng.uniform(0.3, 0.9))
    while x < spec.width_m - 1.4:
        kind, room = rng.random(), spec.width_m - x - 0.4
        if kind < 0.34 and room > 2.6:
            width = min(room, float(rng.uniform(2.6, 5.2)))
            _shop(p, x, x + width)
        elif kind < 0.46 and room > 2.6:
            width = 2.4
            _garage(p, x, x + width)
        elif kind < 0.7:
            width = 1.0
            _door(p, x, height=float(rng.uniform(2.0, 2.4)))
            width += 0.4
        else:
            width = float(rng.uniform(0.8, 1.3))
            style = style or _WindowStyle(pick(rng, TRIMS), pick(rng, DOORS), (2, 2), False,
                                          False, 0.08)
            _window(p, style, x, 0.95, x + width, 2.3)
        x += width + float(rng.uniform(0.3, 1.0))


def _clutter(p: Painter, spec: FacadeSpec) -> None:
    """Draw posters, pipes, vents, graffiti and cables that make a front unmistakable."""
    rng = p.rng
    for _ in range(int(rng.integers(0, 4))):
        x, z = rng.uniform(0.2, spec.width_m - 0.8), rng.uniform(0.9, 1.4)
        poster(p, x, z, x + rng.uniform(0.4, 0.7), z + rng.uniform(0.6, 0.95))
    if rng.random() < 0.7:
        x = float(rng.choice([0.12, spec.width_m - 0.2]))
        p.relief(x, 0.0, x + 0.1, spec.height_m, 0.1, pick(rng, ((90, 92, 94), (130, 110, 96))))
    for _ in range(int(rng.integers(0, 3))):
        x, z = rng.uniform(0.5, spec.width_m - 0.8), rng.uniform(2.9, spec.height_m - 0.6)
        p.rect(x, z, x + 0.4, z + 0.3, (190, 190, 188))
        p.rect(x, z, x + 0.4, z + 0.3, (90, 90, 90), 2)
    if rng.random() < 0.4:
        points = np.cumsum(rng.normal(0, 11, (14, 2)), axis=0) + p.px(
            float(rng.uniform(1.0, spec.width_m - 1.0)), 1.1
        )
        cv2.polylines(p.image, [points.astype(np.int32)], False, pick(rng, SIGNS), 4, cv2.LINE_AA)
    if rng.random() < 0.3:
        x0, base = rng.uniform(0, spec.width_m), rng.uniform(1.5, 4.0)
        for _ in range(500):
            dx, z = rng.normal(0, 0.5), base * rng.random() ** 0.7 * 1.3
            tone = rng.uniform(0.6, 1.3)
            green = (int(50 * tone), int(92 * tone), int(42 * tone))
            cv2.circle(p.image, p.px(x0 + dx, z), int(rng.integers(2, 5)), green, -1)


def draw_facade(spec: FacadeSpec) -> Facade:
    """Return the front that a spec describes; the same spec gives the same pixels."""
    rng = np.random.default_rng(spec.seed)
    h, w = round(spec.height_m * PX_PER_M), round(spec.width_m * PX_PER_M)
    kind = WALL_KINDS[int(rng.integers(len(WALL_KINDS)))]
    painter = Painter(wall(rng, kind, h, w, PX_PER_M), rng)
    if rng.random() < 0.5:
        plinth = pick(rng, ((120, 116, 110), (92, 88, 84), (150, 130, 112)))
        painter.rect(0.0, 0.0, spec.width_m, 0.6, plinth)
    _upper_floors(painter, spec)
    _ground_floor(painter, spec)
    _clutter(painter, spec)
    top = spec.height_m
    painter.relief(-0.05, top - 0.25, spec.width_m + 0.05, top, 0.25, pick(rng, TRIMS))
    return Facade(spec, painter.image, tuple(painter.reliefs))
