# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a score means: the probability that a closure is right, from a file the data wrote.

``netvlad evaluate`` fits the file and the node loads it. It is one JSON object:

- ``format_version``: 1.
- ``model_id``: the model it was fitted to; any other is refused, its scores mean another thing.
- ``score``: what is calibrated: similarity, margin, normalised or verification_score.
- ``kind``: isotonic or logistic.
- ``points``: isotonic only, [[score, probability], ...] rising in both, linear in between.
- ``coefficients``: logistic only, {"slope", "intercept"}: 1 / (1 + exp(-(slope * s + intercept))).
- ``thresholds``: least score for a wanted precision, {"0.99": ..., "1.0": ...}.
- ``protocol``: whatever says what data and what rule of a revisit it was fitted on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from netvlad_ros.errors import InputError, ModelError
from netvlad_ros.types import LoopClosure

FORMAT_VERSION = 1
SCORES = ('similarity', 'margin', 'normalised', 'verification_score')
KINDS = ('isotonic', 'logistic')


@dataclass(frozen=True)
class Calibration:
    """A monotone map from a score to a probability, valid for one model.

    :param points: (score, probability) pairs of an isotonic calibration.
    :param slope: of a logistic calibration, with ``intercept``.
    """

    model_id: str
    score: str = 'similarity'
    kind: str = 'isotonic'
    points: tuple[tuple[float, float], ...] = ()
    slope: float = 0.0
    intercept: float = 0.0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise InputError(f'calibrated score is {self.score!r}, allowed: {", ".join(SCORES)}')
        if self.kind not in KINDS:
            raise InputError(f'calibration kind is {self.kind!r}, allowed: {", ".join(KINDS)}')
        numbers = np.array([*np.ravel(self.points), self.slope, self.intercept], dtype=np.float64)
        if not np.isfinite(numbers).all():
            raise InputError(f'calibration of {self.model_id!r} has values that are not finite')
        if self.kind == 'isotonic':
            self._check_points()

    def _check_points(self) -> None:
        scores = [point[0] for point in self.points]
        probabilities = [point[1] for point in self.points]
        if not self.points or scores != sorted(scores) or probabilities != sorted(probabilities):
            raise InputError(
                f'isotonic points must rise in score and probability, got {self.points!r}'
            )
        if probabilities[0] < 0.0 or probabilities[-1] > 1.0:
            raise InputError(f'probabilities must lie in 0 to 1, got {probabilities!r}')

    def probability(self, score: float) -> float:
        """Return the probability that a closure of this score is right; NaN for a NaN score."""
        if math.isnan(score):
            return math.nan
        if self.kind == 'logistic':
            exponent = min(max(-(self.slope * score + self.intercept), -700.0), 700.0)
            return 1.0 / (1.0 + math.exp(exponent))
        scores, probabilities = zip(*self.points, strict=True)
        return float(np.interp(score, scores, probabilities))

    def apply(self, closure: LoopClosure) -> LoopClosure:
        """Return the closure with its probability.

        :raises ModelError: the closure comes from another model.
        """
        self.check_model(closure.model_id)
        return replace(closure, probability=self.probability(getattr(closure, self.score)))

    def check_model(self, model_id: str) -> None:
        """Refuse a model the calibration was not fitted to.

        :raises ModelError: naming both.
        """
        if model_id != self.model_id:
            raise ModelError(
                f'the calibration is of model {self.model_id!r}, the detector runs {model_id!r}; '
                "fit another with 'netvlad evaluate'"
            )

    def save(self, path: Path) -> None:
        """Write the file."""
        document: dict[str, Any] = {
            'format_version': FORMAT_VERSION,
            'model_id': self.model_id,
            'score': self.score,
            'kind': self.kind,
            'thresholds': dict(self.thresholds),
            'protocol': dict(self.protocol),
        }
        if self.kind == 'isotonic':
            document['points'] = [list(point) for point in self.points]
        else:
            document['coefficients'] = {'slope': self.slope, 'intercept': self.intercept}
        path.write_text(json.dumps(document, indent=2) + '\n', encoding='utf-8')


def load_calibration(path: Path, model_id: str) -> Calibration:
    """Return the calibration in a file.

    :param model_id: of the detector that will use it.
    :raises InputError: the file is missing, damaged or of another version.
    :raises ModelError: it was fitted to another model.
    """
    try:
        document = json.loads(path.read_text(encoding='utf-8'))
        version = document['format_version']
        coefficients = document.get('coefficients', {})
        if version != FORMAT_VERSION:
            raise InputError(
                f'{path} is a calibration of version {version!r}, this release reads '
                f'{FORMAT_VERSION}'
            )
        calibration = Calibration(
            model_id=str(document['model_id']),
            score=document['score'],
            kind=document['kind'],
            points=tuple((float(s), float(p)) for s, p in document.get('points', ())),
            slope=float(coefficients.get('slope', 0.0)),
            intercept=float(coefficients.get('intercept', 0.0)),
            thresholds={str(k): float(v) for k, v in document.get('thresholds', {}).items()},
            protocol=document.get('protocol', {}),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f'{path} is not a calibration file: {error!r}') from None
    calibration.check_model(model_id)
    return calibration
