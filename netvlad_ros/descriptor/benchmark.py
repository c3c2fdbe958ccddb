# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the descriptor costs on this machine: stages, engines, and the way peers compute it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
import os
from pathlib import Path
import tempfile
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor, nn

from netvlad_ros.config import DescriptorConfig
from netvlad_ros.descriptor.backbones import make_backbone
from netvlad_ros.descriptor.bundle import BundleInfo, ModelBundle, make_bundle
from netvlad_ros.descriptor.descriptor import Descriptor
from netvlad_ros.descriptor.netvlad import NetVLAD
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.preprocess import IMAGENET_MEAN, IMAGENET_STD, InputPolicy
from netvlad_ros.descriptor.runtimes.onnx_runtime import open_session
from netvlad_ros.descriptor.runtimes.openvino_runtime import compile_openvino
from netvlad_ros.descriptor.runtimes.prepared import DTYPES, random_images
from netvlad_ros.descriptor.runtimes.selection import candidates, resolve_device
from netvlad_ros.descriptor.runtimes.timing import best_times_s
from netvlad_ros.descriptor.runtimes.torch_runtime import TorchRuntime
from netvlad_ros.descriptor.unit_length import unit
from netvlad_ros.descriptor.whitening import whitening_from

# What a camera gives; inputs of another size are resized from it.
CAMERA_HW = (480, 640)

Calls = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Case:
    """One network and how it is run.

    :param whitening: output dimensions, 0 for none.
    """

    backbone: str
    size_hw: tuple[int, int]
    clusters: int = 64
    whitening: int = 0
    batch: int = 1
    device: str = 'cpu'
    precision: str = 'fp32'
    threads: int = 0


def random_bundle(case: Case) -> ModelBundle:
    """Return the case's network with random weights, which cost what trained ones cost."""
    torch.manual_seed(0)
    backbone = make_backbone(case.backbone)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    pooling = NetVLAD(case.clusters, backbone.channels)
    whitening = None
    if case.whitening:
        inputs = case.clusters * backbone.channels
        weight = torch.empty(case.whitening, inputs).uniform_(-1.0, 1.0)
        whitening = whitening_from(weight, torch.zeros(case.whitening))
    policy = InputPolicy(height=case.size_hw[0], width=case.size_hw[1])
    network = DescriptorNetwork(policy, backbone, pooling, whitening)
    return make_bundle(network, BundleInfo(f'bench_{case.backbone}'))


def measure(case: Case, budget_s: float) -> dict[str, Any]:
    """Return the times of one case in milliseconds, shortest of turns taken in one process.

    :returns: ``stages`` (torch), ``engines`` (whole descriptor from the camera image),
        ``bare`` (the backbone alone on ready input), ``peers``, ``auto`` and ratios.
    """
    if case.threads:
        torch.set_num_threads(case.threads)
    case = replace(case, device=resolve_device(case.device))
    bundle = random_bundle(case)
    images = random_images(case.batch, *CAMERA_HW)
    with _temporary_cache() as folder, torch.inference_mode():
        stages, peers = _stage_calls(case, bundle, images)
        engines = _engine_calls(case, bundle, images)
        bare = _bare_calls(case, bundle, folder)
        descriptor = Descriptor(bundle, _config(case, 'auto'))
        engines['auto'] = partial(descriptor.compute, images)
        result: dict[str, Any] = {
            'case': asdict(case),
            'stages': _ms(best_times_s(stages, budget_s, drop_slow=False)),
            'peers': _ms(best_times_s(peers, budget_s, drop_slow=False)),
            'auto_runtime': descriptor.describe()['runtime'],
        }
        # One set of turns, so that the ratio compares what ran side by side.
        times = _ms(best_times_s({**engines, **bare}, 2 * budget_s, drop_slow=False))
        result['engines'] = {name: times[name] for name in engines}
        result['bare'] = {name: times[name] for name in bare}
        result['peak_mb'] = {name: peak_mb(case.device, call) for name, call in engines.items()}
        result['gflop'] = _gflop(case, bundle)
        result['matrix_gflop_s'] = matrix_gflop_s(case.device, case.precision, budget_s)
    result['ratios'] = _ratios(result)
    return result


def _config(case: Case, runtime: str) -> DescriptorConfig:
    return DescriptorConfig(
        device=case.device, runtime=runtime, precision=case.precision, threads=case.threads
    )


def _ms(times_s: dict[str, float]) -> dict[str, float]:
    return {name: 1e3 * seconds for name, seconds in times_s.items()}


def _ratios(result: dict[str, Any]) -> dict[str, float]:
    """Return the numbers that the descriptor is held to; all are of this run."""
    stages, peers, case = result['stages'], result['peers'], result['case']
    auto_ms = result['engines']['auto']
    rate = result['gflop'] / (auto_ms / 1e3)
    return {
        'auto_over_best_bare': auto_ms / min(result['bare'].values()),
        'pooling_over_forward': stages['pooling + whitening'] / stages['forward'],
        'loop_over_pooling': peers['per-cluster loop'] / stages['pooling'],
        'broadcast_over_pooling': peers['broadcast residual'] / stages['pooling'],
        'images_per_s': case['batch'] / (auto_ms / 1e3),
        'fraction_of_matrix_rate': rate / result['matrix_gflop_s'],
    }


def _stage_calls(
    case: Case, bundle: ModelBundle, images: np.ndarray[Any, np.dtype[np.uint8]]
) -> tuple[Calls, Calls]:
    """Return the stages in torch, and the same work as peers do it."""
    runtime = TorchRuntime(bundle.network, case.device, case.precision, True)
    network, wait = runtime.network, _waiter(case.device)

    def preprocess() -> Tensor:
        resized = [bundle.policy.resize_image(image) for image in images]
        return wait(runtime.normalise(runtime.upload(np.stack(resized))))

    x = preprocess()
    features = network.features(x)
    projection, pooling = network.local_projection, network.pooling
    pooled = features if projection is None else projection(features)
    wide = pooled.float()
    assert isinstance(pooling, NetVLAD)
    stages: Calls = {
        'preprocess': preprocess,
        'forward': lambda: wait(network.features(x)),
        'pooling': lambda: wait(pooling(pooled)),
        'pooling + whitening': lambda: wait(network.pool(features)),
    }
    peers: Calls = {
        'per-image Python preprocessing': lambda: wait(peers_preprocess(case, images)),
        'per-cluster loop': lambda: wait(per_cluster_loop(pooling, wide)),
        'broadcast residual': lambda: wait(broadcast_residual(pooling, wide)),
    }
    return stages, peers


def _engine_calls(
    case: Case, bundle: ModelBundle, images: np.ndarray[Any, np.dtype[np.uint8]]
) -> Calls:
    """Return the whole descriptor, from camera images to rows, by each engine that starts."""
    calls: Calls = {}
    for name, factory in candidates(bundle, case.device, case.precision, case.threads).items():
        # An engine without this precision is a gap in the table, not the end of it.
        with contextlib.suppress(Exception):
            engine = factory()

            def call(engine: Any = engine) -> object:
                resized = [bundle.policy.resize_image(image) for image in images]
                return engine(np.stack(resized))

            call()
            calls[name] = call
    return calls


def _bare_calls(case: Case, bundle: ModelBundle, folder: Path) -> Calls:
    """Return the backbone alone, on input that is ready, by each engine: what none can beat."""
    wait = _waiter(case.device)
    calls: Calls = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        runtime = TorchRuntime(bundle.network, case.device, case.precision, True)
        backbone: Any = runtime.network.backbone.to(memory_format=layout)  # type: ignore[call-overload]
        x = torch.randn(case.batch, 3, *case.size_hw, device=case.device)
        x = x.to(DTYPES[case.precision]).contiguous(memory_format=layout)
        suffix = ' channels-last' if layout is torch.channels_last else ''
        calls[f'bare torch{suffix}'] = lambda b=backbone, x=x: wait(b(x))  # type: ignore[misc]
    if case.device != 'cpu' or case.precision != 'fp32' or not find_spec('onnxscript'):
        return calls
    path = folder / 'bare.onnx'
    runtime = TorchRuntime(bundle.network, 'cpu', 'fp32', False)
    ready = torch.randn(case.batch, 3, *case.size_hw)
    with contextlib.redirect_stdout(None):
        torch.onnx.export(
            runtime.network.backbone, (ready,), str(path), dynamo=True, external_data=False,
            input_names=['x'], verbose=False,
        )  # fmt: skip
    array = ready.numpy()
    if find_spec('onnxruntime'):
        session = open_session(path, 'CPUExecutionProvider', 'cpu', 'fp32', case.threads)
        calls['bare onnxruntime'] = lambda: session.run(None, {'x': array})
    if find_spec('openvino'):
        request = compile_openvino(path, 'fp32', case.threads).create_infer_request()
        calls['bare openvino'] = lambda: request.infer([array], share_inputs=True)
    return calls


def per_cluster_loop(layer: NetVLAD, features: Tensor) -> Tensor:
    """Compute NetVLAD one cluster after the other, as most ports do."""
    x = unit(features.flatten(2), dim=1)
    weights = (layer.assignment @ x).softmax(dim=1)
    rows = []
    for k in range(layer.clusters):
        residual = x - layer.centres[k][None, :, None]
        rows.append((residual * weights[:, k : k + 1]).sum(dim=2))
    return unit(unit(torch.stack(rows, dim=1), dim=2).flatten(1), dim=1)


def broadcast_residual(layer: NetVLAD, features: Tensor) -> Tensor:
    """Compute NetVLAD through the (N, K, D, L) tensor of all residuals."""
    x = unit(features.flatten(2), dim=1)
    weights = (layer.assignment @ x).softmax(dim=1)
    residuals = x[:, None] - layer.centres[None, :, :, None]
    sums = (residuals * weights[:, :, None]).sum(dim=3)
    return unit(unit(sums, dim=2).flatten(1), dim=1)


def peers_preprocess(case: Case, images: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """Prepare the images one by one through PIL and torchvision's transforms."""
    from PIL import Image
    from torchvision import transforms

    steps = transforms.Compose(
        [
            transforms.Resize(case.size_hw),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    return torch.stack([steps(Image.fromarray(image)) for image in images]).to(case.device)


def peak_mb(device: str, call: Callable[[], object]) -> Optional[float]:
    """Return the memory's peak during a call: of the GPU's tensors, or of this process."""
    if device != 'cpu':
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        Path('/proc/self/clear_refs').write_text('5', encoding='ascii')
        call()
        status = Path('/proc/self/status').read_text(encoding='ascii')
    except OSError:
        return None
    peak = next(line for line in status.splitlines() if line.startswith('VmHWM'))
    return int(peak.split()[1]) * 1024 / 1e6


def matrix_gflop_s(device: str, precision: str, budget_s: float) -> float:
    """Return the rate of a large square product, the most that this machine gives."""
    side = 2048 if device == 'cpu' else 8192
    a = torch.randn(side, side, device=device).to(DTYPES[precision])
    wait = _waiter(device)
    seconds = best_times_s({'matmul': lambda: wait(a @ a)}, budget_s)['matmul']
    return 2 * side**3 / seconds / 1e9


def _gflop(case: Case, bundle: ModelBundle) -> float:
    """Return 1e9 multiplications and additions of the backbone for one batch."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device('meta'), FlopCounterMode(display=False) as counter:
        twin: nn.Module = make_backbone(case.backbone, on_meta=True)
        twin(torch.empty(case.batch, 3, *case.size_hw))
    return float(counter.get_total_flops()) / 1e9


def _waiter(device: str) -> Callable[[Tensor], Tensor]:
    """Return a function that passes a tensor on once it has been computed."""

    def wait(tensor: Tensor) -> Tensor:
        if device != 'cpu':
            torch.cuda.synchronize(device)
        return tensor

    return wait


@contextlib.contextmanager
def _temporary_cache() -> Iterator[Path]:
    """Keep the graphs of random networks out of the user's cache."""
    before = os.environ.get('XDG_CACHE_HOME')
    with tempfile.TemporaryDirectory(prefix='netvlad_bench_') as folder:
        os.environ['XDG_CACHE_HOME'] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ['XDG_CACHE_HOME']
            else:
                os.environ['XDG_CACHE_HOME'] = before
