"""What breaks in the weather of few seeds only: the story that breaks for each such mutation."""

from collections.abc import Callable, Mapping
from typing import Final

import pytest

from . import test_found
from .mutations import mutated

STORIES: Final[Mapping[str, Callable[[], None]]] = {
    "a refusal after doubt is taken for clear": test_found.test_a_start_that_was_lost_and_then_refused_is_not_forgotten,
    "what the vendor was asked yesterday is asked again": (
        test_found.test_a_start_that_died_yesterday_is_not_begun_anew_at_who_has_forgotten
    ),
    "a run that another key has found is found again": (
        test_found.test_a_run_is_not_found_for_another_key_of_the_same_journal
    ),
    "holds hold nobody": test_found.test_two_starts_of_one_client_whose_answers_are_lost_find_each_its_own_run,
    "an answered pause is answered again": test_found.test_an_old_read_of_an_answered_pause_changes_nothing,
    "a run that is not visible yet is missing": (
        test_found.test_a_run_that_was_started_here_is_borne_with_when_its_name_is_followed
    ),
    "replays of Origami are taken for news": test_found.test_an_old_refusal_of_origami_is_not_taken_for_one_of_today,
}


@pytest.mark.parametrize("name", STORIES)
def test_a_mechanism_that_is_broken_breaks_its_story(name: str) -> None:
    with mutated(name), pytest.raises(BaseException):  # noqa: B017, PT011 - it breaks as it may
        STORIES[name]()
