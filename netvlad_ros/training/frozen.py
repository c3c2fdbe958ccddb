# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The layers that do not train, run once: their outputs for a few views of each image on disk.

Fine-tuning the last layers of a network costs mostly the forward pass of the first ones. Here
that pass runs once for each of ``views`` augmented views, so a CPU can train what needs a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
import hashlib
import logging
from pathlib import Path
from typing import Optional

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from netvlad_ros.descriptor.backbones import Backbone
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.rootsift import RootSift
from netvlad_ros.descriptor.runtimes.selection import resolve_device
from netvlad_ros.errors import InputError
from netvlad_ros.training.array_file import new_array_file
from netvlad_ros.training.augment import Augment, augmented
from netvlad_ros.training.distributed import Workers
from netvlad_ros.training.images import ImageSource, Indices, Progress, no_progress
from netvlad_ros.types import UInt8Array

_log = logging.getLogger(__name__)

_BATCH = 16

Forward = Callable[[Tensor], Tensor]


def split_backbone(backbone: Backbone) -> tuple[nn.Sequential, nn.Sequential]:
    """Return the leading layers without and the rest with trainable parameters, weights shared."""
    children = list(backbone.children())
    if len(children) == 1 and isinstance(children[0], nn.Sequential):
        children = list(children[0].children())
    first = next(
        (n for n, c in enumerate(children) if any(p.requires_grad for p in c.parameters())),
        len(children),
    )
    return nn.Sequential(*children[:first]), nn.Sequential(*children[first:])


def frozen_hash(network: DescriptorNetwork) -> str:
    """Return 16 hex digits of the layers that do not train and of the size of their input.

    Models that differ only behind those layers share the outputs.
    """
    frozen, _ = split_backbone(network.backbone)  # type: ignore[arg-type]
    digest = hashlib.sha256(repr(network.policy).encode())
    for key, value in nn.Sequential(network.normalise, frozen).state_dict().items():
        digest.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class FrozenViews:
    """Outputs of the frozen layers, (views, N, C, h, w) float16 on disk.

    View 0 is the image as it is, the others are augmented.
    """

    def __init__(self, values: npt.NDArray[np.float16]) -> None:
        self.values = values

    @property
    def views(self) -> int:
        """Return how many views each image has."""
        return int(self.values.shape[0])

    def __len__(self) -> int:
        return int(self.values.shape[1])

    def batch(self, views: Sequence[int], indices: Sequence[int]) -> Tensor:
        """Return (n, C, h, w) float32, channels last, of the given views of the given images."""
        rows = [self.values[view, index] for view, index in zip(views, indices, strict=True)]
        return channels_last(torch.from_numpy(np.stack(rows).astype(np.float32)))


def frozen_views(
    network: DescriptorNetwork,
    images: ImageSource,
    file: Path,
    augment: Optional[Augment] = None,
    views: int = 1,
    seed: int = 0,
    progress: Progress = no_progress,
) -> FrozenViews:
    """Compute the views into a file, or take them from it if it is complete.

    Under ``torchrun`` the first process computes them and the others wait.

    :param file: an ``.npy`` whose name the caller ties to data, weights and settings.
    :param views: number of views, the plain one included.
    :raises InputError: several views are asked for without an augmentation, or the disk is full.
    """
    if views > 1 and augment is None:
        raise InputError(f'{views} views need an augmentation')
    Workers.joined().make_once(
        file, lambda: _write_views(network, images, file, augment, views, seed, progress)
    )
    return FrozenViews(np.load(file, mmap_mode='r'))


@torch.no_grad()
def _write_views(
    network: DescriptorNetwork,
    images: ImageSource,
    file: Path,
    augment: Optional[Augment],
    views: int,
    seed: int,
    progress: Progress,
) -> None:
    """Compute the views into a file, which appears when it is complete."""
    frozen, _ = split_backbone(network.backbone)  # type: ignore[arg-type]
    head = nn.Sequential(network.normalise, frozen).eval()
    device = device_of(network)
    example = torch.from_numpy(images.batch([0])).to(device)
    shape = head(example).shape[1:]
    forward = fast_forward(head, example)
    partial = file.with_suffix('.partial')
    out = new_array_file(partial, np.float16, (views, len(images), *shape))

    def batches() -> Iterator[tuple[int, range, UInt8Array]]:
        for start in range(0, len(images), _BATCH):
            indices = range(start, min(start + _BATCH, len(images)))
            plain = images.batch(indices)
            yield 0, indices, plain
            for view in range(1, views):
                assert augment is not None
                yield view, indices, augmented(plain, indices, augment, view, seed)

    count = views * -(-len(images) // _BATCH)
    with ThreadPoolExecutor(1) as ahead:
        source = batches()
        waiting = ahead.submit(next, source, None)
        for _ in progress(range(count), total=count, unit='batch', description='frozen layers'):
            job = waiting.result()
            assert job is not None
            # While one batch is computed the next one is read and augmented.
            waiting = ahead.submit(next, source, None)
            view, indices, pixels = job
            outputs = forward(torch.from_numpy(pixels).to(device))
            out[view, indices.start : indices.stop] = outputs.cpu().numpy()
    out.flush()
    partial.replace(file)


def device_named(name: str) -> str:
    """Return 'cpu', 'cuda' or 'cuda:N' for 'auto', 'cpu', 'cuda' or 'cuda:N'.

    :raises ConfigError: the name is unknown or torch sees no such GPU.
    """
    found = resolve_device(name)
    # Without a number: each process of torchrun has a current GPU of its own.
    return 'cuda' if name in ('auto', 'cuda') and found != 'cpu' else found


def to_device(network: DescriptorNetwork, name: str) -> None:
    """Move a network to a device of ``device_named``, in place; RootSIFT runs on the CPU only.

    :raises ConfigError: the name is unknown or torch sees no such GPU.
    """
    device = device_named(name)
    if is_convolutional(network):
        network.to(device)


def device_of(network: nn.Module) -> torch.device:
    """Return where a network lies; one without parameters (RootSIFT) on the CPU."""
    first = next(network.parameters(), None)
    return torch.device('cpu') if first is None else first.device


def is_convolutional(network: nn.Module) -> bool:
    """Return whether a network takes batches and can be converted, unlike RootSIFT."""
    return not any(isinstance(module, RootSift) for module in network.modules())


def fast_forward(module: nn.Module, example: Tensor) -> Forward:
    """Return the module's forward by OpenVINO where that is installed, else by torch.

    On a CPU OpenVINO runs MobileNetV2 several times faster than torch's eager mode.

    :param example: an input of batch 1; other batch sizes are accepted as well, and images of
        other sizes go by torch.
    """
    try:
        import openvino
    except ImportError:
        return module
    if example.device.type != 'cpu' or not is_convolutional(module):
        return module
    import warnings

    wanted = [parameter.requires_grad for parameter in module.parameters()]
    try:
        module.requires_grad_(False)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            converted = openvino.convert_model(
                module, example_input=example, input=[-1, *example.shape[1:]]
            )
    finally:
        for parameter, flag in zip(module.parameters(), wanted, strict=True):
            parameter.requires_grad = flag
    settings = {
        'INFERENCE_PRECISION_HINT': 'f32',
        'INFERENCE_NUM_THREADS': torch.get_num_threads(),
    }
    compiled = openvino.Core().compile_model(converted, 'CPU', settings)

    def forward(x: Tensor) -> Tensor:
        if x.shape[1:] != example.shape[1:]:
            outputs: Tensor = module(x)
            return outputs
        return torch.from_numpy(np.array(compiled(x.numpy())[0]))

    return forward


def channels_last(x: Tensor) -> Tensor:
    """Return (n, C, h, w) in the layout in which a CPU trains convolutions 1.7 times as fast."""
    return x.contiguous(memory_format=torch.channels_last)


class FrozenSource:
    """The plain view as an image source: its batches are (n, C, h, w) float32 for ``Tail``."""

    def __init__(self, views: FrozenViews) -> None:
        self._views = views

    def __len__(self) -> int:
        return len(self._views)

    def batch(self, indices: Indices) -> npt.NDArray[np.float32]:
        """Return the frozen layers' outputs of some images."""
        rows = self._views.values[0][np.asarray(indices, dtype=np.int64)]
        return np.asarray(rows, dtype=np.float32)


class Tail(nn.Module):
    """What follows the frozen layers: (n, C, h, w) to (n, dim) unit rows, weights shared."""

    def __init__(self, network: DescriptorNetwork) -> None:
        super().__init__()
        _, self.layers = split_backbone(network.backbone)  # type: ignore[arg-type]
        self.local_projection = network.local_projection
        self.pooling = network.pooling
        self.whitening = network.whitening
        self.dim = network.dim
        self._pool = network.pool

    def forward(self, x: Tensor) -> Tensor:
        """Return the descriptors."""
        return self._pool(self.layers(channels_last(x)))
