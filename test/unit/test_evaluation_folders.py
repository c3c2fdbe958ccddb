# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Sequence folders and image folders, whole and damaged, and what a report says of them."""

from __future__ import annotations

from pathlib import Path
import sys
from typing import cast

import cv2
import numpy as np
import pytest

from netvlad_ros.cli.evaluate import summary_text
from netvlad_ros.config import DetectorConfig
from netvlad_ros.descriptor import Descriptor
from netvlad_ros.errors import InputError
from netvlad_ros.evaluation.plots import figures
from netvlad_ros.evaluation.report_json import to_report
from netvlad_ros.evaluation.runner import evaluate_source
from netvlad_ros.evaluation.source_folder import read_tum, stamp_ns_from_text
from netvlad_ros.evaluation.sources import name_apart, open_source

sys.path.append(str(Path(__file__).parent))
from small_sequences import (
    FRAMES,
    REVISITS,
    MeanColour,
    S,
    pairs,
    picture,
    run_over,
    sequence_of,
)


def test_revisits_name_frames_by_their_index_and_frames_are_taken_in_order_of_time(
    tmp_path: Path,
) -> None:
    rows = [f'{10 + i},{i}.png,{30 * i}' for i in (3, 0, 5, 1, 4)]
    frames = '\n'.join(['index,image,stamp_s', *rows])
    header, *_ = REVISITS.splitlines()
    source = open_source(
        sequence_of(tmp_path / 's', frames, revisits_csv=f'{header}\n13,10,\n15,11 13,14\n')
    )
    listed = source.ground_truth.listed
    assert [frame.stamp_ns // S for frame in source.frames()] == [0, 30, 90, 120, 150]
    assert listed is not None
    assert listed.matches == {2: {0}, 4: {1, 2}} and listed.ignores == {2: set(), 4: {3}}
    assert listed.stamps_ns.tolist() == [0, 30 * S, 90 * S, 120 * S, 150 * S]


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ('\n11,', '\n10,', "index '10' is there twice"),
        ('\n11,', '\nb,', "index 'b' is there twice or is no whole number"),
        ('\n11,', '\n17,', 'frame 11 is not in frames.csv, which lists frames 10 to 17'),
    ],
)
def test_an_index_that_names_no_frame_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    rows = [f'{10 + i},{i}.png,{30 * i}' for i in range(6)]
    frames = '\n'.join(['index,image,stamp_s', *rows]).replace(old, new)
    header, *_ = REVISITS.splitlines()
    folder = sequence_of(tmp_path / 's', frames, revisits_csv=f'{header}\n13,10 11,\n')
    with pytest.raises(InputError, match=message):
        open_source(folder)


def test_sources_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [tmp_path / 'a' / 'run1' / 'bag', tmp_path / 'a' / 'run2' / 'bag', tmp_path / 'other']
    paths += [tmp_path / 'b' / 'run1' / 'bag']
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        sequence_of(path, FRAMES)
    sources = [open_source(path) for path in paths]
    name_apart(sources[:3])
    assert [source.name for source in sources[:3]] == ['run1/bag', 'run2/bag', 'other']
    sources = [open_source(path) for path in paths]
    name_apart(sources)
    assert [s.name for s in sources] == ['a/run1/bag', 'a/run2/bag', 'other', 'b/run1/bag']
    # A path that is the end of another one, as the mounts of a container are.
    copy = tmp_path / 'mount' / tmp_path.relative_to('/') / 'other'
    copy.parent.mkdir(parents=True)
    sources = [open_source(paths[2]), open_source(sequence_of(copy, FRAMES))]
    name_apart(sources)
    shorter = str(paths[2].resolve().relative_to('/'))
    assert [s.name for s in sources] == [shorter, f'mount/{shorter}']
    with pytest.raises(InputError, match='is given twice'):
        name_apart([open_source(tmp_path / 'other'), open_source(tmp_path / 'b' / '..' / 'other')])


def test_images_with_tum_poses_are_paired_by_stamp_or_order(tmp_path: Path) -> None:
    images, poses = tmp_path / 'images', tmp_path / 'poses.txt'
    images.mkdir()
    for stem in ('1.25', '0.75'):
        cv2.imwrite(str(images / f'{stem}.png'), picture(1))
    poses.write_text('# a trajectory\n0.75 0 0 0 0 0 0 1\n1.25 1 0 0 0 0 0 1\n')
    assert [f.stamp_ns for f in open_source(images, poses=poses).frames()] == [
        750_000_000, 1_250_000_000,
    ]  # fmt: skip
    with pytest.raises(InputError, match='--poses'):
        open_source(images)
    for old, new in (('1.25', 'b'), ('0.75', 'a')):
        (images / f'{old}.png').rename(images / f'{new}.png')
    assert [f.stamp_ns for f in open_source(images, poses=poses).frames()][1] == 1_250_000_000
    poses.write_text('0.75 0 0 0 0 0 0 2\n')
    with pytest.raises(InputError, match='length 2'):
        open_source(images, poses=poses)


def test_images_that_are_counted_are_paired_with_the_poses_in_order(tmp_path: Path) -> None:
    poses = tmp_path / 'poses.txt'
    images = tmp_path / 'image_0'
    images.mkdir()
    for index in range(12):
        cv2.imwrite(str(images / f'{index:06d}.png'), picture(index))
    # KITTI's clock starts at 0, as its counter does; others give the time of day.
    for start_s in (0.0, 1_700_000_000.0):
        stamps_s = [start_s + index / 8 for index in range(12)]
        lines = [f'{stamp_s} {i} 0 0 0 0 0 1\n' for i, stamp_s in enumerate(stamps_s)]
        poses.write_text(''.join(lines))
        frames = list(open_source(images, poses=poses).frames())
        assert [f.stamp_ns / S for f in frames] == stamps_s
    poses.write_text(''.join(lines[:11]))
    with pytest.raises(InputError, match=r'000000\.png\) lies .* 1700000000.*12 .* 11 poses'):
        open_source(images, poses=poses)


@pytest.mark.parametrize(
    ('text', 'stamp_ns'),
    [
        ('1.25', 1_250_000_000),
        (' 1403636579.763555527 ', 1_403_636_579_763_555_527),
        ('1403636579763555584', 1_403_636_579_763_555_584),  # an image of EuRoC
        ('1.403636579763555584e+18', 1_403_636_579_763_555_584),  # as np.savetxt writes it
        ('0000000500000000', 500_000_000),
        ('-0.5', -500_000_000),
    ],
)
def test_a_stamp_is_exact_in_seconds_and_in_nanoseconds(text: str, stamp_ns: int) -> None:
    assert stamp_ns_from_text(text, 'here') == stamp_ns


@pytest.mark.parametrize(
    'text', ['', 'frame', '1_25', 'nan', 'inf', '1e999999999', '9300000000', '9' * 19]
)
def test_a_stamp_that_is_none_or_too_large_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=f'here: {text!r}.*(seconds|int64)'):
        stamp_ns_from_text(text, 'here')


def test_nanoseconds_are_read_in_image_names_in_tum_files_and_in_frames_csv(
    tmp_path: Path,
) -> None:
    stamps_ns = [1_403_636_579_763_555_584 + i * S for i in range(2)]
    for stamp_ns in stamps_ns:
        cv2.imwrite(str(tmp_path / f'{stamp_ns}.png'), picture(1))
    poses = tmp_path / 'poses.txt'
    poses.write_text(''.join(f'{stamp_ns} 0 0 0 0 0 0 1\n' for stamp_ns in stamps_ns))
    assert [f.stamp_ns for f in open_source(tmp_path, poses=poses).frames()] == stamps_ns
    rows = [f'{stamp_ns}.png,{stamp_ns}' for stamp_ns in stamps_ns]
    (tmp_path / 'frames.csv').write_text('\n'.join(['image,stamp_s', *rows]))
    assert [f.stamp_ns for f in open_source(tmp_path).frames()] == stamps_ns
    for stamp in ('nan', '9' * 30):
        poses.write_text(f'{stamp} 0 0 0 0 0 0 1\n')
        with pytest.raises(InputError, match=rf'poses\.txt:1: .{stamp}'):
            read_tum(poses)


def test_sparse_poses_at_exactly_the_stamps_of_the_images_are_known(tmp_path: Path) -> None:
    stamps = [f'{1_700_000_000 + 3 * i}.123456789' for i in range(4)]
    path = tmp_path / 'poses.txt'
    path.write_text(''.join(f'{stamp} 0 0 0 0 0 0 1\n' for stamp in stamps))
    assert read_tum(path).at([stamp_ns_from_text(s, '') for s in stamps])[1].all()


@pytest.mark.parametrize(
    ('files', 'words'),
    [
        ({'frames': 'image,stamp_s\n0.png,0\n\n1.png\n'}, r"frames\.csv:4: .*'stamp_s'"),
        ({'frames': FRAMES, 'revisits_csv': REVISITS + '2\n'}, r"csv:4: .*'match_indices'"),
        ({'frames': FRAMES, 'revisits_csv': REVISITS + '2,6,\n'}, r'csv:4: .* 6 .* 0 to 5'),
        ({'frames': FRAMES, 'revisits_csv': REVISITS + '2,,-1\n'}, r'csv:4: .* -1 .* 0 to 5'),
        ({'frames': FRAMES, 'revisits_csv': REVISITS + '9,,\n'}, r'csv:4: .* 9 .* 0 to 5'),
        ({'frames': FRAMES, 'revisits_csv': REVISITS + '2,x,\n'}, r'csv:4: .* whole numbers'),
    ],
)
def test_a_damaged_list_is_one_error(tmp_path: Path, files: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_source(sequence_of(tmp_path / 's', **files))


def test_lists_may_begin_with_the_mark_that_excel_writes(tmp_path: Path) -> None:
    mark = '\ufeff'
    folder = sequence_of(
        tmp_path / 's', mark + FRAMES, revisits_csv=mark + REVISITS,
        groundtruth_txt=mark + '# T_world_base\n0 0 0 0 0 0 0 1\n',
    )  # fmt: skip
    source = open_source(folder)
    assert source.frame_count == 6
    assert source.ground_truth.listed is not None and source.ground_truth.poses is not None
    assert source.ground_truth.listed.matches == {3: frozenset({0}), 5: frozenset({1, 3})}


def test_frames_are_numbered_as_in_the_list_though_an_image_is_damaged(tmp_path: Path) -> None:
    evaluation = run_over(open_source(sequence_of(tmp_path / 's', FRAMES)))
    assert evaluation.replay.frame_indices == (0, 1, 3, 4, 5)


def test_a_listed_query_needs_no_pose(tmp_path: Path) -> None:
    # The poses end after the first frame.
    poses = '0 0 0 0 0 0 0 1\n'
    folder = sequence_of(tmp_path / 's', FRAMES, revisits_csv=REVISITS, groundtruth_txt=poses)
    judgement = run_over(open_source(folder)).judgement
    assert judgement is not None
    # Keyframe 2 is frame 3, keyframe 4 is frame 5.
    assert judgement.queries.tolist() == [1, 2, 3, 4]
    assert judgement.has_revisit.tolist() == [False, True, False, True]
    (folder / 'revisits.csv').unlink()
    judgement = run_over(open_source(folder)).judgement
    assert judgement is not None and not len(judgement.queries)


def test_keyframes_without_a_true_pose_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    poses = ''.join(f'{30 * i} {100 * i} 0 0 0 0 0 1\n' for i in range(5))
    folder = sequence_of(tmp_path / 's', FRAMES, groundtruth_txt=poses)
    report = to_report(run_over(open_source(folder)), 'netvlad')
    # Of 5 keyframes, for the last frame there is no pose.
    assert report['keyframes_without_true_pose'] == 1
    assert '\n  1 keyframes without a true pose\n' in summary_text(report, tmp_path)
    (folder / 'groundtruth.txt').write_text('9000 0 0 0 0 0 0 1\n')
    evaluation = run_over(open_source(folder))
    report = to_report(evaluation, 'netvlad')
    assert (report['keyframes_without_true_pose'], report['queries']) == (5, 0)
    assert 'poses are of 9000.000 to 9000.000 s, the keyframes of 0.000 to 150' in caplog.text
    assert 'retrieval: recall at 100 % precision -,' in summary_text(report, tmp_path)
    assert report['auc'] is None and report['recall_at_100_precision'] is None
    assert set(figures(evaluation)) >= {'trajectory', 'scores'}, 'drawn without a position'
    (folder / 'groundtruth.txt').unlink()
    report = to_report(run_over(open_source(folder)), 'netvlad')
    assert report['keyframes_without_true_pose'] is None
    assert 'true pose\n' not in summary_text(report, tmp_path)


@pytest.mark.parametrize('name', ['img_{}', '{}', '{:06d}'])
def test_counted_images_go_with_the_poses_in_order_however_slow(tmp_path: Path, name: str) -> None:
    images, poses = tmp_path / 'images', tmp_path / 'poses.txt'
    images.mkdir()
    for index in range(12):
        cv2.imwrite(str(images / f'{name.format(index)}.png'), picture(index))
    poses.write_text(''.join(f'{10 * i} {i} 0 0 0 0 0 1\n' for i in range(12)))
    frames = list(open_source(images, poses=poses).frames())
    assert [f.stamp_ns // S for f in frames] == [10 * i for i in range(12)]
    for index, frame in enumerate(frames):
        assert (frame.image_rgb[..., ::-1] == picture(index)).all()


def test_revisits_of_a_query_on_two_rows_and_of_doubled_stamps_are_kept(tmp_path: Path) -> None:
    header, *_ = REVISITS.splitlines()
    frames = FRAMES.replace('4.png,120', '4.png,90')
    folder = sequence_of(
        tmp_path / 's', frames, revisits_csv=f'{header}\n3,0,\n3,1,\n5,3,\n4,,0 1\n'
    )
    judgement = run_over(open_source(folder)).judgement
    assert judgement is not None
    # Keyframes are the frames 0, 1, 3 and 5: 2 is damaged and 4 has the stamp of 3.
    assert np.argwhere(judgement.truth.labels(*pairs(4)) == 1).tolist() == [[2, 0], [2, 1], [3, 2]]


@pytest.mark.parametrize(
    ('fx', 'model', 'warning'),
    [(90, 'plumb_bob', ''), (90, 'fov', "distortion model 'fov', known: plumb_bob"),
     ('.nan', 'plumb_bob', 'not finite: K [[nan,'), (0, '', 'no positive focal lengths')],
)  # fmt: skip
def test_a_calibration_that_cannot_be_used_costs_the_geometry_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fx: object, model: str, warning: str
) -> None:
    folder = sequence_of(
        tmp_path / 's', FRAMES,
        camera_info_yaml=f'{{image_width: 96, image_height: 64, distortion_model: {model!r}, '
        f'camera_matrix: {{data: [{fx}, 0, 48, 0, 90, 32, 0, 0, 1]}}, '
        'distortion_coefficients: {data: [0, 0, 0, 0, 0]}}',
    )  # fmt: skip
    (folder / 'camera.info.yaml').rename(folder / 'camera_info.yaml')
    source = open_source(folder)
    settings = {'keyframes': 'every_frame'}
    evaluate_source(source, cast(Descriptor, MeanColour()), DetectorConfig(), settings)
    assert (source.camera.K is None) == bool(warning)
    assert warning in caplog.text if warning else not caplog.text
