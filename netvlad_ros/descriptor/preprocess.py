# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How an image becomes the network's input: the policy that is bound to each set of weights.

The host resizes (H, W, 3) uint8 RGB images with OpenCV; colour order, mean and scale are part of
the network itself, so every exported graph takes uint8 RGB and no runtime can forget them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from netvlad_ros.errors import InputError, ModelError
from netvlad_ros.types import UInt8Array

RESIZES = ('fixed', 'max_side', 'none')
COLOUR_ORDERS = ('rgb', 'bgr')

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputPolicy:
    """Preprocessing of one set of weights.

    :param mean: per channel in ``colour_order``, on the scale of ``value_range``.
    :param std: likewise.
    :param value_range: what a white pixel is: 255 or 1.
    :param colour_order: 'rgb' or 'bgr', the order of the network's first weights.
    :param resize: 'fixed' to ``height`` x ``width``; 'max_side' shrinks the longer side to
        ``max_side`` and never enlarges; 'none' takes any size.
    :param height: input height in pixels; of the images it was trained on unless 'fixed'.
    :param width: likewise.
    :param max_side: in pixels, read only by 'max_side'.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    value_range: float = 1.0
    colour_order: str = 'rgb'
    resize: str = 'fixed'
    height: int = 240
    width: int = 320
    max_side: int = 0

    def __post_init__(self) -> None:
        if self.resize not in RESIZES:
            raise ModelError(f'resize is {self.resize!r}, allowed: {", ".join(RESIZES)}')
        if self.colour_order not in COLOUR_ORDERS:
            allowed = ', '.join(COLOUR_ORDERS)
            raise ModelError(f'colour_order is {self.colour_order!r}, allowed: {allowed}')

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """Return the network's input height and width for an image of the given size."""
        if self.resize == 'fixed':
            return self.height, self.width
        if self.resize == 'none' or max(height, width) <= self.max_side:
            return height, width
        scale = self.max_side / max(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def resize_image(self, image_rgb: UInt8Array) -> UInt8Array:
        """Return the (h, w, 3) uint8 input: area average when shrinking, bilinear when enlarging.

        :raises InputError: the image is not (H, W, 3) uint8 or has no pixels.
        """
        shape: tuple[int, ...] = getattr(image_rgb, 'shape', ())
        dtype = getattr(image_rgb, 'dtype', None)
        if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise InputError(f'image is {shape} {dtype}, expected (H, W, 3) uint8 RGB')
        height, width = self.size_for(shape[0], shape[1])
        if (height, width) == shape[:2]:
            return np.ascontiguousarray(image_rgb)
        shrinks = height * width < shape[0] * shape[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return np.asarray(
            cv2.resize(image_rgb, (width, height), interpolation=method), dtype=np.uint8
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the policy as plain values for a bundle's metadata."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputPolicy:
        """Return the policy of a bundle's metadata.

        :raises ModelError: a field is missing, unknown or of the wrong kind.
        """
        try:
            policy = cls(
                **{**values, 'mean': _triple(values['mean']), 'std': _triple(values['std'])}
            )
            sizes = policy.height, policy.width, policy.max_side
            if any(type(size) is not int for size in sizes) or min(sizes[:2]) < 1:
                raise ValueError('its sizes are no pixels')
            if not policy.value_range > 0:
                raise ValueError('its value_range is not above 0')
            return policy
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f'input policy {dict(values)!r} is not valid: {error}') from error


def _triple(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(v) for v in values)
    return first, second, third


class Normalise(nn.Module):
    """(N, H, W, 3) uint8 RGB to (N, 3, H, W) float32 in the network's colours and scale."""

    def __init__(self, policy: InputPolicy) -> None:
        super().__init__()
        self.reverse = policy.colour_order == 'bgr'
        std = torch.tensor(policy.std, dtype=torch.float64)
        mean = torch.tensor(policy.mean, dtype=torch.float64)
        scale = policy.value_range / 255.0 / std
        if self.reverse:
            scale, mean, std = scale.flip(0), mean.flip(0), std.flip(0)
        self.register_buffer('scale', scale.float(), persistent=False)
        self.register_buffer('shift', (-mean / std).float(), persistent=False)
        self.scale: Tensor
        self.shift: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Return the normalised images; their memory stays channels-last."""
        count, height, width, channels = images.shape
        # Whole rows, then the permutation: engines turn three values at a time slowly, and a
        # permutation right before a convolution costs them nothing.
        rows = images.reshape(count, height, width * channels).to(self.scale.dtype)
        rows = rows * self.scale.repeat(width) + self.shift.repeat(width)
        x = rows.reshape(count, height, width, channels).permute(0, 3, 1, 2)
        return x.flip(1) if self.reverse else x
