"""Faults for real, the short form: one of each kind that takes seconds. The long form is `make faults`
(tools/faults.py), whose figures are in tests/faults.json."""

import importlib.util
import json
import signal
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "faults.py"
COMMAND = "generator"


@pytest.fixture(scope="module")
def faults():
    specification = importlib.util.spec_from_file_location("faults", TOOL)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    module.prepare()
    return module


@pytest.fixture(scope="module")
def bench(faults, tmp_path_factory):
    made = faults.Bench(tmp_path_factory.mktemp("faults"))
    made.reference(COMMAND)
    return made


def moment(bench, stage, share=0.5):
    places = [index for index, name in enumerate(bench.reference(COMMAND)[1]) if name == stage]
    return places[int(len(places) * share)]


CASES = {
    "killed while learning": lambda faults, bench: faults.stopped(
        COMMAND, moment(bench, "learning"), signal.SIGKILL
    ),
    "killed while painting": lambda faults, bench: faults.stopped(
        COMMAND, moment(bench, "painting"), signal.SIGKILL
    ),
    "killed at the very first write": lambda faults, bench: faults.stopped(COMMAND, 0, signal.SIGKILL),
    "killed at the very last write": lambda faults, bench: faults.stopped(
        COMMAND, len(bench.reference(COMMAND)[1]) - 1, signal.SIGKILL
    ),
    "interrupted while painting": lambda faults, bench: faults.stopped(
        COMMAND, moment(bench, "painting"), signal.SIGINT
    ),
    "the disk is full": lambda faults, bench: faults.full_disk(COMMAND, moment(bench, "painting", 0.2)),
    "all files lie in the future": lambda faults, bench: faults.clock(COMMAND, moment(bench, "painting"), 10),
    "twice at once": lambda faults, bench: faults.several(COMMAND, 2),
    "a flipped bit in a picture": lambda faults, bench: faults.damaged(COMMAND, None, "picture", "flipped"),
}


QUICK = (
    "killed while painting",
    "killed at the very first write",
    "the disk is full",
    "a flipped bit in a picture",
)


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.long) for case in CASES]
)
def test_whatever_happens_the_finished_set_is_the_uninterrupted_one(faults, bench, case):
    record = bench.trial(case, COMMAND, CASES[case](faults, bench))
    if record["outcome"].startswith("skipped"):
        pytest.skip(record["outcome"])
    assert record["outcome"] == "finished", record
    assert not record["changed"], record
    assert record["lost"] == 0, record
    assert not record["traceback"], record


def test_a_changed_source_is_refused_and_the_restored_one_continues(faults, bench):
    record = bench.trial(
        "source", COMMAND, faults.source_changes(COMMAND, moment(bench, "painting"), "replaced")
    )
    assert record["good"], record


def test_the_committed_figures_of_the_long_form_are_without_a_loss():
    path = TOOL.parents[1] / "tests" / "faults.json"
    if not path.exists():
        pytest.skip("`make faults` has not written its figures yet")
    figures = json.loads(path.read_text())
    assert [figures[name] for name in ("sets changed", "images lost", "tracebacks", "wrong")] == [0, 0, 0, 0]
