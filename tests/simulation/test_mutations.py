"""What breaks in the weather of few seeds only: the story that breaks for each such mutation."""

from collections.abc import Callable, Mapping
from typing import Final

import pytest

from . import test_found
from .mutations import BY_NAME, mutated
from .test_simulation import QUICK

STORIES: Final[Mapping[str, Callable[[], None]]] = {
    "the journal keeps no answers": test_found.test_two_streams_of_one_key_that_answer_in_place_both_go_on,
    "a stream keeps no answers when posting fails": (
        test_found.test_a_handler_is_not_run_again_by_a_stream_whose_answer_was_refused
    ),
    "the last answer of a person stands": test_found.test_the_first_answer_of_a_person_stands,
    "the journal keeps claims that nobody heard of": (
        test_found.test_a_handler_whose_stream_is_closed_as_it_is_about_to_be_run_is_run_for_the_next
    ),
    "starts are noted before they may be sent": (
        test_found.test_a_start_that_waited_for_its_turn_when_its_process_was_killed_is_made_by_the_next
    ),
    "starts that were refused stay noted": (
        test_found.test_a_start_that_was_refused_and_waited_when_its_process_was_killed_is_made_by_the_next
    ),
    "owners live for ever": test_found.test_a_start_that_was_taken_over_and_then_refused_is_not_forgotten,
    "what waits for a connection gives no rest": (
        test_found.test_a_request_that_waits_for_a_connection_gives_the_vendor_rest
    ),
    "a stream that leaves goes on listening": test_found.test_a_run_is_not_read_while_no_step_of_its_stream_waits,
    "letting go of a run ends no read": test_found.test_a_read_of_a_run_that_nobody_follows_any_more_is_ended,
    "a refusal after doubt is taken for clear": test_found.test_a_start_that_was_lost_and_then_refused_is_not_forgotten,
    "what Origami forgets is not looked for": (
        test_found.test_a_start_that_origami_took_and_answered_with_its_own_500_is_not_begun_anew_under_its_key
    ),
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


def test_each_mutation_is_noticed_by_few_seeds_or_by_a_story() -> None:
    unseen = {name for name, each in BY_NAME.items() if each.why}

    assert sorted([*QUICK, *STORIES, *unseen]) == sorted(BY_NAME)


@pytest.mark.parametrize("name", STORIES)
def test_a_mechanism_that_is_broken_breaks_its_story(name: str) -> None:
    with mutated(name), pytest.raises(BaseException):  # noqa: B017, PT011 - it breaks as it may
        STORIES[name]()
