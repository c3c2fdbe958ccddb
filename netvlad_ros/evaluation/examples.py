# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which image pairs a person should look at: the best right, worst wrong and best missed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netvlad_ros.evaluation.evaluation import (
    GEOMETRY,
    RETRIEVAL,
    Evaluation,
    Judgement,
    acting_threshold,
)
from netvlad_ros.evaluation.metrics import NO_MATCH
from netvlad_ros.evaluation.truth import RIGHT, WRONG

PAIRS_OF_A_KIND = 3


@dataclass(frozen=True)
class Example:
    """One pair of keyframe indices with what is to be said of it."""

    query: int
    match: int
    caption: str


@dataclass(frozen=True)
class Examples:
    """The pairs of each kind, the most telling first."""

    stage: str
    best_right: tuple[Example, ...]
    worst_wrong: tuple[Example, ...]
    best_missed: tuple[Example, ...]


def choose_examples(evaluation: Evaluation) -> Examples:
    """Return the pairs of the last stage that ran.

    A missed query has a revisit that the stage did not declare: nothing at all, a wrong match,
    or one under the threshold for full precision where none acted in the run. The best missed
    is the one whose right match is the most similar.
    """
    judgement = evaluation.judgement
    assert judgement is not None
    stage = GEOMETRY if GEOMETRY in judgement.decisions else RETRIEVAL
    made, declared = judgement.decisions[stage], judgement.declared[stage]
    order = np.argsort(-made.scores, kind='stable')
    kept = [int(r) for r in order if declared[r] != NO_MATCH]
    return Examples(
        stage,
        _spread(judgement, stage, [r for r in kept if made.labels[r] == RIGHT]),
        _spread(judgement, stage, [r for r in kept if made.labels[r] == WRONG]),
        _missed(evaluation, judgement, stage),
    )


def _spread(judgement: Judgement, stage: str, rows: list[int]) -> tuple[Example, ...]:
    """Return the first rows that are not neighbours of one already shown."""
    out: list[Example] = []
    made, declared = judgement.decisions[stage], judgement.declared[stage]
    unit = 'geometric score' if stage == GEOMETRY else 'similarity'
    for row in rows:
        query = int(judgement.queries[row])
        if len(out) < PAIRS_OF_A_KIND and all(abs(query - e.query) > 3 for e in out):
            score = made.scores[row]
            value = f'{score:.0f}' if stage == GEOMETRY else f'{score:.4f}'
            out.append(Example(query, int(declared[row]), f'{unit} {value}'))
    return tuple(out)


def _missed(evaluation: Evaluation, judgement: Judgement, stage: str) -> tuple[Example, ...]:
    made = judgement.decisions[stage]
    threshold = acting_threshold(evaluation, stage)
    found = (made.labels == RIGHT) & (made.scores >= threshold)
    ranking, candidates = judgement.ranking, []
    for row in np.flatnonzero(made.has_revisit & made.judged & ~found):
        query = int(judgement.queries[int(row)])
        best, similarity = ranking.best_right[query], ranking.best_right_similarity[query]
        candidates.append((float(similarity), query, int(best), int(row)))
    candidates.sort(key=lambda item: (-item[0], item[1]))
    out: list[Example] = []
    for similarity, query, best, position in candidates:
        if len(out) < PAIRS_OF_A_KIND and all(abs(query - e.query) > 3 for e in out):
            wrong = int(judgement.declared[stage][position])
            instead = '' if wrong in (NO_MATCH, best) else f'; declared keyframe {wrong} instead'
            out.append(Example(query, best, f'similarity {similarity:.4f}{instead}'))
    return tuple(out)
