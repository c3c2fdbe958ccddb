# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""RootSIFT (Arandjelovic and Zisserman, CVPR 2012) behind a backbone's interface."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from netvlad_ros.errors import InputError

CHANNELS = 128


class RootSift(nn.Module):
    """(1, H, W, 3) uint8 RGB to (1, 128, n, 1) unit features of OpenCV's SIFT keypoints.

    :param max_features: strongest keypoints kept.
    """

    name = 'rootsift'
    channels = CHANNELS

    def __init__(self, max_features: int = 1000) -> None:
        super().__init__()
        self.max_features = max_features

    def feature_size_hw(self, height: int, width: int) -> tuple[int, int]:
        """Return the largest size of the feature map."""
        return self.max_features, 1

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of one image; none where it has no texture."""
        if images.shape[0] != 1:
            raise InputError(f'RootSIFT takes one image at a time, got {images.shape[0]}')
        gray = cv2.cvtColor(images[0].cpu().numpy(), cv2.COLOR_RGB2GRAY)
        detector: Any = cv2.SIFT.create(nfeatures=self.max_features)
        _, sift = detector.detectAndCompute(gray, None)
        if sift is None:
            return torch.zeros(1, CHANNELS, 0, 1)
        rooted = np.sqrt(sift / np.maximum(sift.sum(axis=1, keepdims=True), 1e-12))
        return torch.from_numpy(rooted.astype(np.float32).T[None, :, :, None])
