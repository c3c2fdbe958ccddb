# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whitening of descriptors in float64: by PCA, or by what differs within a place.

PCA whitening is the authors' ``addPCA``. With fewer samples than input dimensions the (n, n) Gram
matrix is decomposed instead of the (D, D) covariance: the same result at a fraction of the cost.
"""

from __future__ import annotations

from typing import Optional

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from netvlad_ros.descriptor.unit_length import unit
from netvlad_ros.errors import InputError

# Added to the eigenvalues, as the authors do.
_EPS = 1e-9


class Whitening(nn.Module):
    """``y = W x + b``, then unit length: (N, D) to (N, P)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    @property
    def dim(self) -> int:
        """Return P."""
        return int(self.weight.shape[0])

    def forward(self, descriptors: Tensor) -> Tensor:
        """Return (N, P) unit rows."""
        return unit(nn.functional.linear(descriptors, self.weight, self.bias), dim=1)

    def cropped(self, dim: int) -> Whitening:
        """Return the whitening to the first ``dim`` components: equal to crop and re-normalise.

        :raises InputError: there are fewer components.
        """
        if not 1 <= dim <= self.dim:
            raise InputError(f'whitening dim is {dim!r}, allowed: 1 to {self.dim}')
        return whitening_from(self.weight[:dim], self.bias[:dim])


def whitening_from(weight: Tensor, bias: Tensor) -> Whitening:
    """Return the layer with the given (P, D) weight and (P,) bias, without copying them."""
    layer = Whitening(0, 0)
    layer.weight = nn.Parameter(weight.detach())
    layer.bias = nn.Parameter(bias.detach())
    return layer


def fit_whitening(
    samples: npt.NDArray[np.floating], dim: Optional[int] = None, strength: float = 1.0
) -> Whitening:
    """Return the PCA whitening of descriptors.

    :param samples: (n, D) unit descriptors of training database images.
    :param dim: components to keep, at most min(D, n - 1); None keeps that many.
    :param strength: a component is divided by its deviation to this power: 1 whitens, as the paper
        does, 0 only rotates. Where a camera differs from that of the samples, the components that
        varied least there say least, and whitening makes most of them.
    :raises InputError: samples are too few for ``dim``, not finite, or span fewer dimensions.
    """
    count, inputs = samples.shape
    dim = min(inputs, count - 1) if dim is None else dim
    if not 1 <= dim <= inputs:
        raise InputError(f'whitening dim is {dim!r}, allowed: 1 to {inputs}')
    if count <= dim:
        raise InputError(
            f'whitening to {dim} dimensions needs more than {dim} descriptors, got {count}: '
            'give more images or a smaller dim'
        )
    x = np.asarray(samples, dtype=np.float64)
    if not np.isfinite(x).all():
        raise InputError('whitening samples are not finite')
    mean = x.mean(axis=0)
    x = x - mean
    values, axes = _principal_axes(x, dim)
    if values[-1] <= 1e-12 * values[0]:
        rank = int(np.count_nonzero(values > 1e-12 * values[0]))
        raise InputError(
            f'whitening samples span {rank} dimensions, {dim} wanted: give more varied images '
            'or a smaller dim'
        )
    projection = axes / (values + _EPS)[:, None] ** (strength / 2)
    bias = -projection @ mean
    return whitening_from(
        torch.from_numpy(projection.astype(np.float32)), torch.from_numpy(bias.astype(np.float32))
    )


def fit_discriminant(
    samples: npt.NDArray[np.floating], differences: npt.NDArray[np.floating], dim: int
) -> Whitening:
    """Return the projection that tells places apart by what does not change within one.

    First what differs between two descriptors of one place is made white, then the directions in
    which all descriptors then vary most are kept (linear discriminant projections: Mikolajczyk and
    Matas, ICCV 2007; for retrieval: Radenovic et al., TPAMI 2018).

    :param samples: (n, D) unit descriptors of training images.
    :param differences: (m, D) between two descriptors of one place each.
    :raises InputError: the shapes do not fit, values are not finite, or there are fewer samples or
        differences than dimensions.
    """
    x, d = np.asarray(samples, np.float64), np.asarray(differences, np.float64)
    inputs = x.shape[1]
    if not 1 <= dim <= inputs or d.shape[1:] != x.shape[1:]:
        raise InputError(
            f'whitening dim is {dim!r} of samples {x.shape} and differences {d.shape}: allowed '
            f'are 1 to {inputs}, and as many columns'
        )
    if min(len(x), len(d)) <= inputs:
        raise InputError(
            f'{len(x)} descriptors and {len(d)} differences of one place are too few for '
            f'{inputs} dimensions: give more images or more views of them'
        )
    if not (np.isfinite(x).all() and np.isfinite(d).all()):
        raise InputError('whitening samples are not finite')
    mean = x.mean(axis=0)
    x = x - mean
    within, axes = np.linalg.eigh(d.T @ d / len(d))
    whiten = (axes / np.sqrt(np.maximum(within, 0.0) + _EPS)).T
    _, directions = _principal_axes(x @ whiten.T, dim)
    projection = directions @ whiten
    bias = -projection @ mean
    return whitening_from(
        torch.from_numpy(projection.astype(np.float32)), torch.from_numpy(bias.astype(np.float32))
    )


def _principal_axes(
    x: npt.NDArray[np.float64], dim: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the largest ``dim`` variances, descending, and their (dim, D) unit axes."""
    count, inputs = x.shape
    gram = count < inputs
    square = (x @ x.T if gram else x.T @ x) / (count - 1)
    values, vectors = np.linalg.eigh(square)
    values, vectors = values[::-1][:dim], vectors[:, ::-1][:, :dim]
    if gram:
        scale = np.sqrt(np.maximum(values, _EPS) * (count - 1))
        return values, (x.T @ (vectors / scale)).T
    return values, vectors.T.copy()
