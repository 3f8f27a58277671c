"""The benchmark's own reading and arithmetic, apart from any mesh."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from tests.bench.locomo_chat import Band, Kind, Reply, read_date
from tests.bench.locomo_data import Question, load
from tests.bench.locomo_dates import Span, read_span
from tests.bench.locomo_person import first_person
from tests.bench.locomo_scores import auroc, mean, percentile, recall_at

ROOT = Path(__file__).resolve().parents[3]
SAMPLE = {
    "sample_id": "conv-1",
    "conversation": {
        "speaker_a": "Ann",
        "speaker_b": "Bo",
        "session_2_date_time": "9:05 am on 1 June, 2023",
        "session_2": [{"dia_id": "D2:1", "speaker": "Bo", "text": "Rain again."}],
        "session_1_date_time": "1:56 pm on 8 May, 2023",
        "session_1": [
            {"dia_id": "D1:1", "speaker": "Ann", "text": "Hello!"},
            {"dia_id": "D1:2", "speaker": "Bo", "text": "Hello Ann."},
        ],
    },
    "qa": [
        {"question": "Who greets Bo?", "answer": 7, "evidence": ["D1:1; D2:1", "D"], "category": 4},
        {"question": "Nobody knows?", "answer": "", "evidence": ["D9:9"], "category": 1},
    ],
}


def test_the_data_is_read_in_the_order_of_its_sessions(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps([SAMPLE]))
    (dialogue,) = load(path)
    assert [turn.id for turn in dialogue.turns] == ["D1:1", "D1:2", "D2:1"]
    assert dialogue.turns[0].time == datetime(2023, 5, 8, 13, 56, tzinfo=UTC)
    assert dialogue.turns[0].time < dialogue.turns[1].time
    assert sorted(dialogue.sessions()) == [1, 2]
    assert dialogue.named_in("Did Bo see Ann?") == ["Bo", "Ann"]


def test_only_questions_whose_evidence_exists_are_asked(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps([SAMPLE]))
    (dialogue,) = load(path)
    (question,) = dialogue.questions
    assert question.evidence == {"D1:1", "D2:1"}
    assert question.answer == "7"


def test_recall_is_the_share_of_the_evidence_among_the_first_k() -> None:
    ranked = ["a", "b", "c", "d"]
    assert recall_at({"a", "d"}, ranked, 3) == 0.5
    assert recall_at({"a", "d"}, ranked, 4) == 1.0
    assert recall_at({"x"}, ranked, 4) == 0.0


def test_auroc_counts_a_tie_as_half_and_needs_both_sides() -> None:
    assert auroc([2, 3], [0, 1]) == 1.0
    assert auroc([1, 1], [1]) == 0.5
    assert auroc([0, 2], [1]) == 0.5
    assert str(auroc([], [1])) == str(mean([])) == "nan"


def test_a_percentile_is_one_of_the_values() -> None:
    values = list(range(1, 101))
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]
    assert percentile([7.0], 0.99) == 7.0


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("7 May 2023", "2023-05-07", "2023-05-07"),
        ("July 2, 2023", "2023-07-02", "2023-07-02"),
        ("The sunday before 25 May 2023", "2023-05-21", "2023-05-21"),
        ("The week before 9 June 2023", "2023-06-02", "2023-06-08"),
        ("two weekends before 17 July 2023", "2023-07-08", "2023-07-09"),
        ("Two weeks before 11 August 2023", "2023-07-28", "2023-08-03"),
        ("The summer of 2022", "2022-06-01", "2022-08-31"),
        ("January, 2023", "2023-01-01", "2023-01-31"),
        ("Since 2016", "2016-01-01", "2016-12-31"),
        ("20 May 2023, the Saturday before 25 May 2023", "2023-05-20", "2023-05-20"),
    ],
)
def test_a_phrase_means_these_days(text: str, first: str, last: str) -> None:
    assert read_span(text) == Span(date.fromisoformat(first), date.fromisoformat(last))


@pytest.mark.parametrize("text", ["her mother", "two weeks", "31 June 2023", ""])
def test_a_phrase_without_a_date_that_exists_means_no_days(text: str) -> None:
    assert read_span(text) is None


def test_an_answer_may_be_a_week_wide_and_not_a_year() -> None:
    gold = Span(date(2023, 5, 7), date(2023, 5, 7))
    assert Span(date(2023, 5, 3), date(2023, 5, 9)).agrees_with(gold)
    assert not Span(date(2023, 1, 1), date(2023, 12, 31)).agrees_with(gold)
    assert not Span(date(2023, 5, 8), date(2023, 5, 8)).agrees_with(gold)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ('On 25 May 2023 you told me: "We ran." That means 20 May 2023, the day.', "2023-05-20"),
        ('I\'m not sure; it is this. On 25 May 2023 Ann said: "On 3 May 2023."', "2023-05-03"),
        ('On 25 May 2023 I told you: "Today." No other date was given.', "2023-05-25"),
    ],
)
def test_a_replys_date_is_resolved_quoted_or_that_of_its_turn(text: str, day: str) -> None:
    assert read_date(text) == Span(date.fromisoformat(day), date.fromisoformat(day))


def test_a_reply_says_how_sure_it_is_and_what_it_quotes() -> None:
    question = Question("?", 4, frozenset(["D1:1"]), "")
    reply = Reply(Kind.KNOWN, question, "I don't know that", ["D1:2", "D1:1"], 0.1)
    assert reply.band is Band.UNKNOWN
    assert not reply.quotes_evidence(1)
    assert reply.quotes_evidence(2)


@pytest.mark.parametrize(
    ("third", "first"),
    [
        ("When did Ann move?", "When did I move?"),
        ("What is Ann's job?", "What is my job?"),
        ("Is Ann happy with what she did to her house?", "Am I happy with what I did to my house?"),
        ("What did Bo give to Ann?", "What did you give to me?"),
        ("Where has Bo been?", "Where have you been?"),
        ("Who won?", "Who won?"),
    ],
)
def test_a_question_is_put_in_the_first_person(third: str, first: str) -> None:
    assert first_person(third, "Ann", "Bo") == first


def test_without_data_one_line_says_what_to_give() -> None:
    script = ROOT / "tests/bench/locomo.py"
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, env={})
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].endswith("a file in LoCoMo's format")


def test_a_file_that_is_no_such_data_is_named(tmp_path: Path) -> None:
    script = ROOT / "tests/bench/locomo.py"
    command = [sys.executable, str(script), "--data", str(tmp_path / "none.json")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("no such data: ")
    assert len(run.stderr.splitlines()) == 1
