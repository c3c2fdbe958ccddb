# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A model in one safetensors file: tensors, and as metadata everything needed to use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
import hashlib
import json
from pathlib import Path
import re
from typing import Any, Optional, Union

from safetensors import SafetensorError, safe_open
import torch
from torch import Tensor, nn

from netvlad_ros.descriptor.backbones import make_backbone
from netvlad_ros.descriptor.local_projection import LocalProjection, local_projection_from
from netvlad_ros.descriptor.network import DescriptorNetwork, Encoder
from netvlad_ros.descriptor.poolings import make_pooling
from netvlad_ros.descriptor.preprocess import InputPolicy
from netvlad_ros.descriptor.rootsift import RootSift
from netvlad_ros.descriptor.whitening import whitening_from
from netvlad_ros.errors import ModelError
from netvlad_ros.tensor_file import write_tensors

FORMAT_VERSION = 1
_HASH_DIGITS = 12
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]*')


@dataclass(frozen=True)
class BundleInfo:
    """What a bundle says of itself besides its architecture.

    :param training: data, recipe and commit.
    :param source: where the weights come from.
    :param recommended_min_similarity: threshold that 'netvlad evaluate' found, if any.
    """

    name: str
    licence: str = ''
    source: str = ''
    training: Mapping[str, Any] = field(default_factory=dict)
    recommended_min_similarity: Optional[float] = None


@dataclass(frozen=True)
class ModelBundle:
    """A network in eval mode with its identity.

    :param model_id: ``name@`` and 12 hex digits over tensors, architecture and input policy.
    """

    network: DescriptorNetwork
    info: BundleInfo
    model_id: str

    @property
    def policy(self) -> InputPolicy:
        """Return the preprocessing that belongs to the weights."""
        return self.network.policy

    @property
    def dim(self) -> int:
        """Return the length of a descriptor."""
        return self.network.dim


def make_bundle(network: DescriptorNetwork, info: BundleInfo) -> ModelBundle:
    """Return a bundle of a network, put into eval mode, with its identity computed.

    :raises ModelError: the name has characters that a file name should not have, or a weight is
        not finite.
    """
    for key, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(f'model {info.name!r} has values in {key} that are not finite')
    if not _NAME.fullmatch(info.name):
        raise ModelError(f'model name is {info.name!r}, allowed: letters, digits, . _ -')
    network.eval()
    network.requires_grad_(False)
    return ModelBundle(network, info, model_id_of(network, info.name))


def model_id_of(network: DescriptorNetwork, name: str) -> str:
    """Return ``name@`` and the first 12 hex digits of the SHA-256 of what decides a descriptor."""
    digest = hashlib.sha256()
    identity = [network.backbone.name, network.pooling.settings, network.policy.to_dict()]
    digest.update(json.dumps(identity, sort_keys=True).encode())
    for key, tensor in sorted(_tensors(network).items()):
        digest.update(f'{key} {tensor.dtype} {tuple(tensor.shape)}\n'.encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return f'{name}@{digest.hexdigest()[:_HASH_DIGITS]}'


def save_bundle(
    path: Union[str, Path], network: DescriptorNetwork, info: BundleInfo
) -> ModelBundle:
    """Write a network to one safetensors file, whole or not at all, and return it as a bundle.

    :raises ModelError: the name is not valid or the file cannot be written.
    """
    path = Path(path)
    bundle = make_bundle(network, info)
    try:
        write_tensors(path, _tensors(network), _metadata(network, info))
    except OSError as error:
        raise ModelError(f'cannot write model {str(path)!r}: {error}') from error
    return bundle


def load_bundle(path: Union[str, Path]) -> ModelBundle:
    """Return the bundle in a file.

    :raises ModelError: the file is missing, damaged, no bundle or of a newer format.
    """
    path = Path(path)
    try:
        with safe_open(path, framework='pt') as stored:
            metadata = stored.metadata() or {}
            # Copies: a file that is overwritten under its mapping kills the process.
            tensors = {key: stored.get_tensor(key).clone() for key in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f'cannot read model {str(path)!r}: {error}') from error
    values = _parsed(metadata, path)
    try:
        network = _network_from(values, tensors)
    except (TypeError, ValueError, RuntimeError) as error:
        first_line = ' '.join(str(error).split())[:300]
        raise ModelError(f'model {str(path)!r} is damaged: {first_line}') from error
    info = BundleInfo(
        name=values['name'],
        licence=values['licence'],
        source=values['source'],
        training=values['training'],
        recommended_min_similarity=values.get(_THRESHOLD),
    )
    return make_bundle(network, info)


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return the stored tensors; a counter that inference never reads is left out."""
    return {
        key: tensor.detach().cpu().contiguous()
        for key, tensor in network.state_dict().items()
        if not key.endswith('num_batches_tracked')
    }


def _metadata(network: DescriptorNetwork, info: BundleInfo) -> dict[str, str]:
    values = {
        'format_version': FORMAT_VERSION,
        'name': info.name,
        'backbone': network.backbone.name,
        'pooling': network.pooling.settings,
        'clusters': getattr(network.pooling, 'clusters', 0),
        'dim': network.dim,
        'input': network.policy.to_dict(),
        'training': dict(info.training),
        'licence': info.licence,
        'source': info.source,
        'recommended_min_similarity': info.recommended_min_similarity,
    }
    return {key: json.dumps(value) for key, value in values.items()}


_REQUIRED = {
    'name': str, 'backbone': str, 'pooling': dict, 'clusters': int, 'dim': int, 'input': dict,
    'training': dict, 'licence': str, 'source': str,
}  # fmt: skip
_THRESHOLD = 'recommended_min_similarity'


def _parsed(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    if 'format_version' not in metadata:
        raise ModelError(
            f"{str(path)!r} is a safetensors file but no model bundle: use 'netvlad models import'"
        )
    try:
        values = {key: json.loads(text) for key, text in metadata.items()}
    except ValueError as error:
        raise ModelError(f'metadata of model {str(path)!r} is damaged: {error}') from error
    version = values['format_version']
    if version != FORMAT_VERSION:
        raise ModelError(
            f'model {str(path)!r} has format_version {version!r}, this release reads '
            f'{FORMAT_VERSION}: update netvlad_ros'
        )
    missing = [key for key in _REQUIRED if key not in values]
    if missing:
        raise ModelError(f'metadata of model {str(path)!r} lacks {", ".join(missing)}')
    wrong = [key for key, kind in _REQUIRED.items() if type(values[key]) is not kind]
    if type(values.get(_THRESHOLD)) not in (float, int, type(None)):
        wrong.append(_THRESHOLD)
    if wrong:
        raise ModelError(
            f'metadata of model {str(path)!r} is damaged: {wrong[0]} is {values[wrong[0]]!r}'
        )
    return values


def _network_from(values: Mapping[str, Any], tensors: dict[str, Tensor]) -> DescriptorNetwork:
    """Build the architecture without memory and give it the stored tensors.

    :raises TypeError, ValueError, RuntimeError: they do not make a network.
    """
    backbone: Encoder
    if values['backbone'] == RootSift.name:
        backbone = RootSift()
    else:
        backbone = make_backbone(values['backbone'], on_meta=True)
    local_projection: Optional[LocalProjection] = None
    if layer := _linear(tensors, 'local_projection', backbone.channels):
        local_projection = local_projection_from(*layer)
    channels = backbone.channels if local_projection is None else local_projection.channels
    pooling = make_pooling(values['pooling'], values['clusters'], channels)
    network = DescriptorNetwork(
        InputPolicy.from_dict(values['input']), backbone, pooling,
        local_projection=local_projection,
    )  # fmt: skip
    if layer := _linear(tensors, 'whitening', network.dim):
        network.whitening = whitening_from(*layer)
    counters = {
        key: torch.zeros((), dtype=torch.long)
        for key in network.state_dict()
        if key.endswith('num_batches_tracked')
    }
    network.load_state_dict({**counters, **tensors}, assign=True)
    return network


def _linear(
    tensors: Mapping[str, Tensor], name: str, inputs: int
) -> Optional[tuple[Tensor, Tensor]]:
    """Return weight and bias of an optional layer.

    :raises ValueError: their shapes do not fit.
    """
    weight, bias = tensors.get(f'{name}.weight'), tensors.get(f'{name}.bias')
    if weight is None or bias is None:
        return None
    if weight.shape != (len(bias), inputs) or bias.ndim != 1:
        shapes = f'{tuple(weight.shape)} and {tuple(bias.shape)}'
        raise ValueError(f'{name} has weight and bias of {shapes} for {inputs} values')
    return weight, bias
