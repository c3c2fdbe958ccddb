# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a run makes of a recording: its stamps, masked pairs, closures and times, and the page."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
from pathlib import Path
import re
import sys
from typing import cast

import cv2
import numpy as np
import pytest

from netvlad_ros.cli.evaluate import summary_text
from netvlad_ros.config import DetectorConfig, from_dict
from netvlad_ros.descriptor import Descriptor
from netvlad_ros.evaluation import plots, report_html
from netvlad_ros.evaluation.evaluation import evaluate
from netvlad_ros.evaluation.protocol import Protocol
from netvlad_ros.evaluation.report_html import to_html
from netvlad_ros.evaluation.report_json import to_report
from netvlad_ros.evaluation.runner import evaluate_source
from netvlad_ros.evaluation.several import results_table, text_table
from netvlad_ros.evaluation.sources import SkipCounts, Source, open_source
from netvlad_ros.evaluation.truth import (
    GroundTruth,
    PoseTrack,
    allowed_pairs,
    truth_of_keyframes,
)
from netvlad_ros.types import Camera, ClosureStatus, Frame, LoopClosure

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


class Seconds:
    """A recording whose images come with the given stamps, as a bag gives them."""

    name, path, topics, frame_count = 'seconds', Path('seconds'), None, None
    camera, ground_truth = Camera(), GroundTruth()

    def __init__(self, *stamps_s: int) -> None:
        self.stamps_s, self.skipped = stamps_s, SkipCounts()
        self.protocol: dict[str, object] = {}

    def frames(self) -> Iterator[Frame]:
        """Yield a picture for each stamp."""
        for index, stamp_s in enumerate(self.stamps_s):
            yield Frame(stamp_s * S, picture(index))


@pytest.mark.parametrize(
    ('stamps_s', 'skipped', 'times_s'),
    [
        # One stamp is wrong.
        ((0, 1, 9000, 2, 3), {'image stamp ahead (image kept)': 1}, (0, 1, 9000, 2, 3)),
        ((100, 101, 101, 102), {'image stamp not newer': 1}, (100, 101, 102)),
        # A clock that is set back, and a recording that begins anew.
        (
            (100, 125, 130, 110, 111),
            {'image stamps jumped backwards (image kept)': 1},
            (100, 125, 130, 130, 131),
        ),
        (
            (100, 125, 130, 100, 101),
            {'image stamps jumped backwards (image kept)': 1},
            (100, 125, 130, 10_000_130, 10_000_131),
        ),
        # There is no other clock to tell a leap ahead from a pause.
        ((100, 101, 9_000, 9_001), {}, (100, 101, 9_000, 9_001)),
    ],
)
def test_stamps_out_of_order_cost_no_keyframe(
    stamps_s: tuple[int, ...], skipped: dict[str, int], times_s: tuple[int, ...]
) -> None:
    replay = run_over(cast(Source, Seconds(*stamps_s))).replay
    assert replay.skipped == skipped
    assert replay.times_ns == tuple(s * S for s in times_s)
    assert len({k.session for k in replay.keyframes}) == 1 + any('backwards' in k for k in skipped)


def test_pairs_are_masked_by_the_time_between_them_though_a_clock_was_set() -> None:
    track = PoseTrack(np.asarray([0]), np.eye(4)[None])
    stamps_ns, times_ns = (100 * S, 130 * S, 110 * S), (100 * S, 130 * S, 130 * S)
    truth = truth_of_keyframes(
        GroundTruth(track), stamps_ns, Protocol(), 0.0, times_ns=times_ns
    )
    assert truth is not None
    counted = [[False] * 3, [True, False, False], [True, False, False]]
    assert truth.allowed(*pairs(3)).tolist() == counted


def test_no_keyframe_is_a_revisit_of_itself() -> None:
    allowed = allowed_pairs([0, 1, 2 * S], 0.0)(*pairs(3))
    assert allowed.tolist() == [[False] * 3, [True, False, False], [True, True, False]]


@pytest.mark.parametrize(
    ('settings', 'masked_s'),
    [({}, 20), ({'exclude_s': 5}, None), ({'exclude_s': 5, 'gt_gap_s': 20}, 20)],
)
def test_listed_revisits_are_hidden_by_the_search_or_by_a_gap_that_was_asked_for(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, float],
    masked_s: int | None,
) -> None:
    frames = 'image,stamp_s\n' + ''.join(f'{i}.png,{8 * i}\n' for i in range(6))
    folder = sequence_of(tmp_path / 's', frames, revisits_csv=REVISITS)
    descriptor = cast(Descriptor, MeanColour())
    config = from_dict(DetectorConfig, {'verification': {'enabled': False}})
    protocol = {'keyframes': 'every_frame', **settings}
    evaluate_source(open_source(folder), descriptor, config, protocol)
    told = f'1 of 3 listed revisits do not count: they are less than {masked_s} s older'
    assert told in caplog.text if masked_s else not caplog.text


def test_a_closure_that_the_gap_masks_does_not_hide_one_that_counts(tmp_path: Path) -> None:
    folder = sequence_of(tmp_path / 's', FRAMES, revisits_csv=REVISITS)
    source = open_source(folder)
    replay = run_over(source).replay
    last, masked, right = (replay.keyframes[i] for i in (4, 3, 1))
    closures = tuple(
        LoopClosure(last, match, similarity, 'mean@0', consistency=9)
        for match, similarity in ((masked, 0.9), (right, 0.5))
    )
    replay = dataclasses.replace(replay, closures=closures)
    protocol = Protocol(gt_gap_s=75.0)
    judgement = evaluate('s', '', replay, source.ground_truth, protocol).judgement
    assert judgement is not None
    assert judgement.declared['consistency'].tolist() == [-1, -1, 1]
    assert judgement.decisions['consistency'].judged.all()


def test_the_time_of_a_keyframe_has_its_geometry_in_it(tmp_path: Path) -> None:
    folder = sequence_of(tmp_path / 's', FRAMES, revisits_csv=REVISITS)
    descriptor, settings = cast(Descriptor, MeanColour()), {'keyframes': 'every_frame'}
    evaluation = evaluate_source(open_source(folder), descriptor, DetectorConfig(), settings)
    steps = evaluation.replay.latency_ms
    parts = zip(steps['descriptor'], steps['search'], steps['verify'], strict=True)
    for total, taken in zip(steps['total'], parts, strict=True):
        assert total >= sum(taken) - 1e-6


def test_accepted_closures_are_listed_before_rejected_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_html, '_MAX_CLOSURE_ROWS', 1)
    evaluation = run_over(open_source(sequence_of(tmp_path / 's', FRAMES)))
    first, second, last = evaluation.replay.keyframes[:3]
    closures = (
        LoopClosure(last, first, 0.75, 'mean@0', status=ClosureStatus.REJECTED),
        LoopClosure(last, second, 0.25, 'mean@0', status=ClosureStatus.VERIFIED),
    )
    replay = dataclasses.replace(evaluation.replay, closures=closures)
    evaluation = dataclasses.replace(evaluation, replay=replay)
    names = ('trajectory', 'similarity_matrix')
    page = to_html(evaluation, to_report(evaluation, ''), dict.fromkeys(names, b''))
    assert '<b>1</b><span>closures, 1 more rejected</span>' in page
    assert '0.2500' in page and '0.7500' not in page and '1 more in closures.csv' in page


def test_of_a_long_recording_the_matrix_draws_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, 'MATRIX_SIDE', 3)
    folder = sequence_of(tmp_path / 's', FRAMES, revisits_csv=REVISITS)
    figure = plots.matrix_figure(run_over(open_source(folder)))
    pictures = [axes.images[0] for axes in figure.axes[:2]]
    assert all(len(picture.get_array()) == 3 for picture in pictures)
    assert all(picture.get_extent() == [-0.5, 4.5, 4.5, -0.5] for picture in pictures)


def test_shares_are_printed_with_what_they_are_of(tmp_path: Path) -> None:
    # Frames 3, 4 and 5 are where 0, 1 and 0 were. 4 looks like 0 and not like 1; 2 is damaged.
    poses = ''.join(f'{30 * i} {x} 0 0 0 0 0 1\n' for i, x in enumerate((0, 90, 40, 0, 90, 0)))
    folder = sequence_of(tmp_path / 's', FRAMES, groundtruth_txt=poses)
    for index, bgr in {0: (0, 0, 255), 1: (0, 255, 0), 4: (0, 60, 100)}.items():
        cv2.imwrite(str(folder / f'{index}.png'), np.full((64, 96, 3), bgr, dtype=np.uint8))
    for copy in ('3', '5'):
        (folder / f'{copy}.png').write_bytes((folder / '0.png').read_bytes())
    evaluation = run_over(open_source(folder))
    report = to_report(evaluation, 'netvlad')
    assert report['candidates_at_threshold']['1.0'] == {'precision': 1.0, 'count': 3}
    text = summary_text(report, tmp_path)
    of_3 = 'retrieval: recall at 100 % precision 66.7 % of 3'
    for words in (r'recall@1/5/10 66\.7 % / .* %', of_3):
        found = re.search(words + r' \[([0-9.]+), ([0-9.]+)\]', text)
        assert found and float(found[1]) <= 66.7 <= float(found[2])
    assert report['recall_at_1']['value'] == report['recall_at']['1']
    assert 'search.min_similarity, best match of each query; all 3 candidates' in text
    assert '66.7 % of 3' in text_table(*results_table([report]))
    names = ('trajectory', 'precision_recall', 'similarity_matrix', 'scores')
    page = to_html(evaluation, report, dict.fromkeys(names, b''))
    assert '66.7 % of 3' in page and 'search.min_similarity, best match of each query' in page
    assert 'precision of all 3 candidates' in page
