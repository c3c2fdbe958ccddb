# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The command from end to end, judged closures, learnt thresholds and the calibration file."""

from __future__ import annotations

import argparse
from dataclasses import replace
import json
import math
from pathlib import Path
import re
import shutil

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
import torch

from netvlad_ros.cli import evaluate
from netvlad_ros.cli.main import main
from netvlad_ros.config import DetectorConfig
from netvlad_ros.descriptor import BundleInfo, save_bundle
from netvlad_ros.descriptor.backbones import make_backbone
from netvlad_ros.descriptor.netvlad import NetVLAD
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.preprocess import InputPolicy
from netvlad_ros.evaluation.calibrate import fit_calibration
from netvlad_ros.evaluation.closures import agrees, label_closure, pose_error
from netvlad_ros.evaluation.metrics import Decisions
from netvlad_ros.evaluation.report_json import TIMING_FIELDS
from netvlad_ros.evaluation.truth import NEITHER, RIGHT, WRONG, Truth
from netvlad_ros.geometry import inverse
from netvlad_ros.loop_closure.calibration import load_calibration
from netvlad_ros.types import ClosureStatus, Keyframe, LoopClosure, TransformKind

FIELDS = (
    'source', 'model_id', 'config', 'frames', 'keyframes', 'queries', 'queries_with_revisit',
    'recall_at', 'pr_curve', 'auc', 'recall_at_100_precision', 'recommended_threshold',
    'closures', 'verified_precision', 'verified_recall', 'latency_ms', 'peak_rss_mb', 'protocol',
)  # fmt: skip
LAP = 12


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network without training: equal pictures still get equal descriptors."""
    torch.manual_seed(0)
    backbone = make_backbone('mobilenet_v3_small_s16')
    policy = InputPolicy(height=64, width=96)
    network = DescriptorNetwork(policy, backbone, NetVLAD(4, backbone.channels))
    path = tmp_path_factory.mktemp('model') / 'small.safetensors'
    save_bundle(path, network, BundleInfo('small', 'Apache-2.0', 'test'))
    return path


@pytest.fixture(scope='module')
def sequence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two laps past twelve places, the second a little darker; one image is damaged."""
    folder = tmp_path_factory.mktemp('two_laps')
    rows, poses = ['index,image,stamp_s'], ['# T_world_base']
    for index in range(2 * LAP):
        place = index % LAP
        coarse = np.random.default_rng(place).integers(0, 256, (15, 20, 3))
        image = cv2.resize(
            (coarse * (1.0 if index < LAP else 0.9)).astype(np.uint8), (320, 240),
            interpolation=cv2.INTER_CUBIC,
        )  # fmt: skip
        cv2.imwrite(str(folder / f'{index}.png'), image)
        rows.append(f'{index},{index}.png,{index}.0')
        poses.append(f'{index}.0 {5 * place} 0 0 0 0 0 1')
    (folder / '5.png').write_bytes((folder / '5.png').read_bytes()[:500])
    (folder / 'frames.csv').write_text('\n'.join(rows) + '\n')
    (folder / 'groundtruth.txt').write_text('\n'.join(poses) + '\n')
    (folder / 'sequence.yaml').write_text(
        'protocol: {keyframes: every_frame, exclude_s: 6, gt_gap_s: 6, gt_radius_m: 1}\n'
    )
    return folder


def test_stamps_that_repeat_are_left_out_and_those_out_of_order_are_sorted(
    sequence: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, output = tmp_path / 'looped', tmp_path / 'out'
    shutil.copytree(sequence, folder)
    (folder / 'groundtruth.txt').unlink()
    stamps_s = (0.0, 1.0, 1.0, 2.0, 0.5, 1.5, 3.0)
    rows = [f'{i},{i if i < 5 else i + 1}.png,{stamp_s}' for i, stamp_s in enumerate(stamps_s)]
    (folder / 'frames.csv').write_text('\n'.join(['index,image,stamp_s', *rows]) + '\n')
    command = ['evaluate', str(folder), '-o', str(output), '--model', str(model)]
    assert main(command) == 0
    report = json.loads((output / 'report.json').read_text())
    assert (report['frames'], report['keyframes']) == (7, 6)
    assert report['skipped'] == {'image stamp not newer': 1}
    assert 'not in order of its stamps' in caplog.text
    printed = capsys.readouterr().out
    assert re.search(r'no ground truth.* --poses .* --ground-truth-topic', printed)


def test_the_command_writes_everything_and_repeats_itself(
    sequence: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = [tmp_path / 'a', tmp_path / 'b']
    for output in outputs:
        code = main(['evaluate', str(sequence), '-o', str(output), '--model', str(model),
                     '--baseline', '--sweep', '--json'])  # fmt: skip
        assert code == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])['sources'][0]['keyframes'] == 23
    first, second = (json.loads((o / 'report.json').read_text()) for o in outputs)
    assert all(name in first for name in FIELDS)
    assert first['keyframes_without_true_pose'] == 0
    assert first['frames'] == 23 and first['skipped'] == {'damaged image': 1}
    assert (first['queries'], first['queries_with_revisit']) == (18, 11)
    assert first['recall_at']['1'] == 1.0
    assert first['verified_precision'] == 1.0 and first['verified_recall'] == 1.0
    assert {'retrieval', 'geometry'} <= set(first['stages'])
    assert set(first['baselines']) == {"peers' rule", 'plain check'}
    for report in (first, second):
        for name in (*TIMING_FIELDS, 'command'):
            del report[name]
    assert first == second
    for name in ('closures.csv', 'trajectory.tum', 'plots/precision_recall.png'):
        assert (outputs[0] / name).read_bytes() == (outputs[1] / name).read_bytes()
    page = (outputs[0] / 'report.html').read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,12})', page)
    assert len(sources) >= 8 and all(s.startswith('data:image/') for s in sources)
    assert main(['evaluate', '--compare', *map(str, outputs)]) == 0
    assert 'geometry: recall at 100 % precision' in capsys.readouterr().out


def test_errors_end_with_one_line(
    sequence: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full, file = tmp_path / 'full', tmp_path / 'file'
    full.mkdir()
    (full / 'report.json').touch()
    file.touch()
    (tmp_path / 'foreign').write_text('[1]')
    incomplete = dict.fromkeys(('name', 'model_id', 'stages', 'latency_ms'))
    (tmp_path / 'incomplete').write_text(json.dumps(incomplete))
    for arguments, what in (
        ([str(sequence), '-o', str(full)], 'is not empty'),
        ([str(sequence), '-o', str(file / 'sub')], 'cannot be written'),
        ([str(tmp_path / 'absent'), '-o', str(tmp_path / 'o')], 'does not exist'),
        ([str(sequence), '-o', str(tmp_path / 'o'), '--set', 'search.k=3'], 'search.k'),
        ([str(sequence), '-o', str(tmp_path / 'o'), '--set', 'search.exclude_s=-1'], 'allowed'),
        ([str(sequence), '-o', str(tmp_path / 'o'), '--set', 'search.exclude_s=['], "'['"),
        ([str(sequence)] * 2 + ['-o', str(tmp_path / 'o')], 'is given twice'),
        (['-o', str(tmp_path / 'o')], 'at least one SOURCE'),
        (['--compare', str(full), str(full)], 'not a report'),
        (['--compare', str(tmp_path / 'foreign'), str(full)], 'foreign is not a report'),
        (['--compare', str(tmp_path / 'incomplete'), str(full)], "evaluate: no 'frames'"),
    ):
        assert main(['evaluate', *arguments, '--model', str(model)]) == 1
        error = capsys.readouterr().err
        assert what in error and error.count('\n') == 1


def test_a_file_in_the_place_of_a_report_is_found_before_the_run(
    sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(sequence, tmp_path / 'other')
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'other').touch()
    sources = [str(sequence), str(tmp_path / 'other')]
    arguments = ['-o', str(tmp_path / 'out'), '--overwrite', '--model', str(tmp_path / 'none')]
    assert main(['evaluate', *sources, *arguments]) == 1
    # The model is loaded after that.
    assert 'out/other is a file, where a folder' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('score', 'truth', 'setting', 'why'),
    [
        ('similarity', False, 'true', 'without ground truth nothing is right or wrong'),
        ('verification_score', True, 'false', 'verification.enabled is false'),
    ],
)
def test_why_there_is_no_calibration_is_told(
    sequence: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    score: str,
    truth: bool,
    setting: str,
    why: str,
) -> None:
    folder = tmp_path / 'sequence'
    shutil.copytree(sequence, folder)
    if not truth:
        (folder / 'groundtruth.txt').unlink()
    code = main(['evaluate', str(folder), '-o', str(tmp_path / 'o'), '--model', str(model),
                 '--calibrate', score, '--set', f'verification.enabled={setting}'])  # fmt: skip
    assert code == 0
    assert f'no calibration: {why}' in capsys.readouterr().out


def test_a_recording_that_fails_does_not_take_the_others_with_it(
    sequence: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, output = tmp_path / 'bad', tmp_path / 'out'
    bad.mkdir()
    (bad / 'frames.csv').write_text('image,stamp_s\nabsent.png,1\n')
    code = main(['evaluate', str(bad), str(sequence), '-o', str(output), '--model', str(model),
                 '--set', 'verification.min_inliers=900'])  # fmt: skip
    assert code == 1
    error = capsys.readouterr().err
    assert 'bad: ' in error and 'no usable image' in error and 'absent.png' in error
    report = json.loads((output / sequence.name / 'report.json').read_text())
    # Geometry that verifies nothing finds nothing, which is not the same as unknown.
    assert (report['verified_precision'], report['verified_recall']) == (None, 0.0)


def test_settings_come_from_the_nodes_file_the_command_line_and_the_default(
    tmp_path: Path,
) -> None:
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    plain = tmp_path / 'plain.yaml'
    plain.write_text('search: {min_similarity: 0.5, exclude_s: 7}\n')
    node = tmp_path / 'vpr.yaml'
    node.write_text(
        '/**:\n  vpr:\n    ros__parameters:\n      map_path: x\n      search: {exclude_s: 7.0}\n'
    )
    flat = tmp_path / 'flat.yaml'
    flat.write_text('vpr:\n  ros__parameters:\n    map_path: x\n    search.exclude_s: 7.0\n')
    for file in (plain, node, flat):
        arguments = ['s', '-o', 'o', '--config', str(file), '--set', 'search.min_similarity=0.25']
        config = evaluate.detector_config(parser.parse_args(arguments))
        assert (config.search.exclude_s, config.search.min_similarity) == (7.0, 0.25)
        assert config.keyframes == DetectorConfig().keyframes
    node.write_text('vpr:\n  ros__parameters:\n')
    config = evaluate.detector_config(parser.parse_args(['s', '-o', 'o', '--config', str(node)]))
    assert config.search == DetectorConfig().search


def pose(x: float, yaw_deg: float) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler('z', yaw_deg, degrees=True).as_matrix()
    T[0, 3] = x
    return T


def closure(kind: TransformKind, T: np.ndarray) -> LoopClosure:
    query, match = (Keyframe(i, i, 's', 'c', 0) for i in (1, 0))
    return LoopClosure(query, match, 0.9, 'm@0', status=ClosureStatus.VERIFIED,
                       transform_kind=kind, T_match_query=T)  # fmt: skip


@pytest.mark.parametrize(
    ('kind', 'x', 'yaw_deg', 'right'),
    [
        (TransformKind.METRIC, 2.19, 4.9, True),
        (TransformKind.METRIC, 2.21, 0.0, False),  # over 0.1 m + 5 % of 2 m
        (TransformKind.METRIC, 2.0, 5.1, False),
        (TransformKind.UP_TO_SCALE, 1.0, 4.9, True),
        (TransformKind.UP_TO_SCALE, -1.0, 0.0, False),  # the wrong way
    ],
)
def test_a_measured_transform_is_judged_by_the_true_one(
    kind: TransformKind, x: float, yaw_deg: float, right: bool
) -> None:
    poses = np.stack([pose(3.0, 0.0), pose(5.0, 0.0)])
    labels = np.full((2, 2), WRONG if right else RIGHT, dtype=np.int8)
    truth = Truth(
        lambda queries, matches: labels[queries, matches],
        lambda queries, matches: queries > matches, poses, None, np.ones(2, bool),
    )  # fmt: skip
    error = pose_error(closure(kind, pose(x, yaw_deg)), inverse(poses[0]) @ poses[1])
    assert agrees(kind, error) == right
    label = label_closure(closure(kind, pose(x, yaw_deg)), truth, 1, 0)
    assert label == (RIGHT if right else WRONG), 'the transform goes before the place'
    unmeasured = replace(closure(kind, pose(x, 0)), transform_kind=TransformKind.NONE)
    assert label_closure(unmeasured, truth, 1, 0) == labels[1, 0]
    assert label_closure(unmeasured, truth, 0, 1) == NEITHER, 'masked'


def test_nees_of_an_honest_covariance_is_its_dimension() -> None:
    rng = np.random.default_rng(0)
    sigma = np.asarray([0.02, 0.03, 0.05, 0.01, 0.004, 0.006])
    T_true, values = pose(1.0, 70.0), []
    for _ in range(400):
        noise = rng.normal(0.0, sigma)
        T = T_true.copy()
        T[:3, 3] += noise[:3]
        T[:3, :3] = Rotation.from_rotvec(noise[3:]).as_matrix() @ T_true[:3, :3]
        made = replace(closure(TransformKind.METRIC, T), covariance=np.diag(sigma**2))
        values.append(pose_error(made, T_true).nees)
    assert 5.5 < float(np.mean(values)) < 6.5


def test_a_calibration_recovers_known_probabilities(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    scores = rng.uniform(0.0, 1.0, 1500)
    right = rng.uniform(size=1500) < 1.0 / (1.0 + np.exp(-(12.0 * scores - 6.0)))
    labels = np.where(right, RIGHT, WRONG).astype(np.int8)
    labels[::10] = NEITHER
    decisions = Decisions(scores, labels, np.ones(1500, bool))
    fit = fit_calibration([decisions], 'm@0', 'similarity', {'radius_m': 1})
    assert fit is not None and fit.decisions == 1350
    for predicted, share, count in fit.reliability:
        assert abs(predicted - share) < 4.0 * math.sqrt(0.25 / count)
    fit.calibration.save(tmp_path / 'calibration.json')
    loaded = load_calibration(tmp_path / 'calibration.json', 'm@0')
    for score, probability in ((0.25, 0.047), (0.5, 0.5), (0.75, 0.953)):
        assert loaded.probability(score) == pytest.approx(probability, abs=0.08)
    all_right = replace(decisions, labels=np.full(1500, RIGHT, dtype=np.int8))
    assert fit_calibration([all_right], 'm@0', 'similarity', {}) is None


def test_few_declared_decisions_close_together_still_give_a_calibration() -> None:
    # A drive that declares something in its last tenth alone: all in one stretch of the drive.
    scores = np.full(100, -np.inf)
    scores[91:] = np.linspace(0.1, 0.9, 9)
    labels = np.where(np.arange(100) >= 95, RIGHT, WRONG).astype(np.int8)
    one_drive = [Decisions(scores, labels, np.ones(100, bool))]
    # Four drives that declare one match each.
    single = [one_drive[0].subset(np.asarray([row])) for row in (91, 92, 98, 99)]
    for runs in (one_drive, single):
        fit = fit_calibration(runs, 'm@0', 'similarity', {})
        assert fit is not None
        json.dumps(fit.summary(), allow_nan=False)
