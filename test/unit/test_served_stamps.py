# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a stamp out of order means, case by case; ``test_node.py`` shows what the node does."""

import pytest

from netvlad_ros.served_stamps import ServedStamps

S = 1_000_000_000
TIME_JUMP_S = 1.0


def served(*seconds):
    """Return the stamps of a session whose images arrived as they were stamped."""
    stamps = ServedStamps()
    for second in seconds:
        stamps.add(second * S, float(second))
    return stamps


@pytest.mark.parametrize(
    ('before', 'stamp_s', 'arrived_s', 'problem', 'serves', 'clock_step_s', 'begins_session'),
    [
        ((), 7, 0, '', True, None, False),
        ((100, 101), 102, 102, '', True, None, False),
        ((100, 101), 3800, 102, 'image stamps jumped ahead', True, 3699, False),
        # A pause of the camera is no clock that was set.
        ((100, 101), 7301, 7301, '', True, None, False),
        ((100, 101), 101, 102, 'image stamp not newer', False, None, False),
        ((100, 101), 100, 102, 'image stamp not newer', False, None, False),
        ((100, 101, 8000), 102, 102, 'image stamp ahead', True, 102 - 8000, False),
        ((100, 150, 151), 104, 152, 'image stamps jumped backwards', True, None, True),
        ((100, 150, 151), 120, 152, 'image stamps jumped backwards', True, 120 - 151, True),
    ],
)  # fmt: skip
def test_what_a_stamp_means(
    before, stamp_s, arrived_s, problem, serves, clock_step_s, begins_session
):
    verdict = served(*before).judge(stamp_s * S, arrived_s, TIME_JUMP_S)
    step_ns = None if clock_step_s is None else clock_step_s * S
    assert (verdict.problem, verdict.serves) == (problem, serves)
    assert (verdict.clock_step_ns, verdict.begins_session) == (step_ns, begins_session)
    assert bool(verdict.text) == bool(problem)


def test_a_stamp_that_proved_wrong_is_forgotten_even_if_its_successor_is_not_served():
    stamps = served(100, 101, 8000)
    assert stamps.judge(102 * S, 102.0, TIME_JUMP_S).problem
    assert not stamps.judge(103 * S, 103.0, TIME_JUMP_S).problem
