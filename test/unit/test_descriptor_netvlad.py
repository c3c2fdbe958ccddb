# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The NetVLAD layer against its definition, and against the known bugs of other code."""

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from netvlad_ros.descriptor.netvlad import NetVLAD
from netvlad_ros.errors import ConfigError, InputError

K, D = 16, 32


def clustered_samples(seed=0, count=4000):
    """Return unit samples around K directions, and the means of their groups as centres."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(K, D))
    labels = rng.integers(0, K, count)
    samples = directions[labels] + 0.6 * rng.normal(size=(count, D))
    samples /= np.linalg.norm(samples, axis=1, keepdims=True)
    centres = np.stack([samples[labels == k].mean(axis=0) for k in range(K)])
    return torch.from_numpy(centres), torch.from_numpy(samples)


def initialised(version):
    centres, samples = clustered_samples()
    layer = NetVLAD(K, D, version).double()
    layer.init_from_clusters(centres, samples)
    return layer, centres, samples


def definition(layer, features):
    """Compute the paper's sums with loops in float64: (N, D, H, W) to (N, K*D)."""
    assignment, centres = layer.assignment.detach().numpy(), layer.centres.detach().numpy()
    bias = np.zeros(len(centres)) if layer.bias is None else layer.bias.detach().numpy()
    rows = []
    for one in features.numpy():
        total = np.zeros_like(centres)
        for x in one.reshape(one.shape[0], -1).T:
            x = x / math.sqrt((x * x).sum() + 1e-12)
            scores = assignment @ x + bias
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            for k in range(len(centres)):
                total[k] += weights[k] * (x - centres[k])
        total /= np.sqrt((total**2).sum(axis=1, keepdims=True) + 1e-12)
        row = total.reshape(-1)
        rows.append(row / np.linalg.norm(row))
    return np.stack(rows)


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_matches_the_definition(version):
    layer, _, _ = initialised(version)
    features = torch.randn(3, D, 5, 7, generator=torch.manual_seed(1), dtype=torch.float64)
    expected = definition(layer, features)
    assert np.abs(layer(features).detach().numpy() - expected).max() < 1e-12
    single = layer.float()(features.float()).detach().numpy()
    assert np.linalg.norm(single - expected, axis=1).max() <= 1e-5


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_initialisation_makes_the_best_assignment_100_times_the_second(version):
    """Peers' alpha is near 0 (indices for distances) or 10 times too large (roles swapped)."""
    layer, _, samples = initialised(version)
    logits = samples @ layer.assignment.T
    if layer.bias is not None:
        logits = logits + layer.bias
    top = logits.topk(2, dim=1).values
    assert (top[:, 0] - top[:, 1]).mean().exp().item() == pytest.approx(100.0)


def test_v2_assigns_by_squared_distance_to_the_centres():
    """Peers' bias is -alpha * |c| without the square."""
    layer, centres, samples = initialised('v2')
    alpha = layer.assignment[0, 0].item() / (2 * centres[0, 0].item())
    expected = (-alpha * torch.cdist(samples, centres).square()).softmax(dim=1)
    actual = (samples @ layer.assignment.T + layer.bias).softmax(dim=1)
    assert torch.allclose(actual, expected, atol=1e-12)


def test_v1_assigns_along_normalised_centres_and_keeps_the_raw_ones():
    layer, centres, _ = initialised('v1')
    lengths = layer.assignment.norm(dim=1)
    assert torch.allclose(lengths, lengths[0].expand(K))
    assert torch.equal(layer.centres, centres)
    assert layer.bias is None


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_gradients(version):
    layer = NetVLAD(3, 4, version).double()
    features = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    parameters = tuple(p.detach().requires_grad_() for p in layer.parameters())
    names = [name for name, _ in layer.named_parameters()]

    def call(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (features, *parameters))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_normalises_in_float32_whatever_the_precision(dtype):
    """In pure fp16 the epsilon underflows, and an empty cluster or a black image gives NaN."""
    layer = initialised('v1')[0].float()
    features = torch.randn(2, D, 4, 4, generator=torch.manual_seed(2))
    features[1] = 0.0
    expected = layer(features.to(dtype).float())
    with torch.autocast('cpu', dtype=dtype):
        actual = layer(features.to(dtype))
    assert actual.dtype is torch.float32
    assert actual.isfinite().all()
    assert torch.allclose(actual, expected, atol=1e-6)


def test_flattens_cluster_major():
    layer, _, _ = initialised('v1')
    features = torch.randn(1, D, 3, 3, generator=torch.manual_seed(3), dtype=torch.float64)
    swapped = NetVLAD(K, D).double()
    order = torch.arange(K).roll(1)
    swapped.load_state_dict(
        {'assignment': layer.assignment[order], 'centres': layer.centres[order]}
    )
    expected = layer(features).reshape(K, D)[order].flatten()
    assert torch.allclose(swapped(features)[0], expected)


class Recorder(TorchDispatchMode):
    """Notes how many operations run and the largest tensor that one makes."""

    def __init__(self):
        super().__init__()
        self.operations, self.largest = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        if isinstance(out, torch.Tensor):
            self.largest = max(self.largest, out.numel())
        return out


def test_no_loop_over_clusters_and_no_tensor_of_all_residuals():
    counts = []
    for clusters in (8, 64):
        layer, features = NetVLAD(clusters, 64), torch.randn(2, 64, 12, 16)
        with torch.no_grad(), Recorder() as recorder:
            layer(features)
        counts.append(recorder.operations)
        assert recorder.largest <= 2 * max(64, clusters) * 12 * 16
    assert counts[0] == counts[1]


def test_refuses_what_cannot_initialise():
    layer = NetVLAD(K, D)
    centres, samples = clustered_samples()
    with pytest.raises(InputError, match=r'\(16, 31\)'):
        layer.init_from_clusters(centres[:, 1:], samples)
    with pytest.raises(InputError, match='gap'):
        layer.init_from_clusters(centres[:1].expand(K, D), samples)
    with pytest.raises(ConfigError, match="'v3'"):
        NetVLAD(K, D, 'v3')
