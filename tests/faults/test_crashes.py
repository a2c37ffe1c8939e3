"""A command that is killed at any moment goes on, given again, as if it had not been."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.trials import Trials
from tests.faults.warm import Warm
from tests.faults.world import COMMANDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("n", [1, pytest.param(60, marks=pytest.mark.extensive)])
def test_killed_at_random_moments_a_command_ends_as_if_undisturbed(
    command: str, n: int, warm: Warm, tmp_path: Path, tell: Callable[[object], None]
) -> None:
    trials = Trials(warm, command, tmp_path, seed=n)

    trials.run(n)

    tell(trials.counts)
    assert trials.counts.trials == n
