"""What every table notebook asks at the scales `seconds` and `hour`, as plain records: written once into
tests/hour_questions.json from the code before presets existed, compared by tests/test_paper_presets.py.

    python tests/hour_questions.py > tests/hour_questions.json
"""

import contextlib
import dataclasses
import io
import json
import sys
import tempfile

from table_pages import TABLES, executed

from genaug.alignment import AlignmentStudy
from genaug.comparison import Comparison
from genaug.identity import content_hash
from genaug.preflight import open_run
from genaug.roles import ROLES
from genaug.tables import table_places

LATER = {"fit": None, "matte": "#ffffff", "dtype": "auto"}  # fields of a comparison and their defaults


def plain(value):
    """A question, a study or a name as JSON; fields that a comparison gained later do not count while they
    have their default."""
    if isinstance(value, Comparison):
        return {name: entry for name, entry in value.record().items() if entry != LATER.get(name, ...)}
    actual = json.loads(
        json.dumps(dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value, default=str)
    )
    return as_before(actual) if isinstance(value, AlignmentStudy) else actual


LATER_OF_STUDIES = {"more_judges": [], "features": "auto", "ssim_size": None, "inception": None}


def as_before(study):
    "A study as it was written when its judge was named: the page Roles says what it is on an embedded set."
    actual = {name: entry for name, entry in study.items() if entry != LATER_OF_STUDIES.get(name, ...)}
    actual["class_prompt"] = {
        name: entry for name, entry in actual["class_prompt"].items() if (name, entry) != ("metaclasses", {})
    }
    if actual["judge"][0] == "auto":
        judge = ROLES["judge", "embedded"]
        actual["judge"] = [judge.network, None, judge.size, *actual["judge"][3:]]
    if actual["judge_learning_rate"] is None:
        actual["judge_learning_rate"] = 0.003
    return actual


def asked(table, scale):
    "The comparisons and studies of a table at a scale, in the notebook's order."
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as empty:
        space = executed(table, scale=scale, results=empty)
    if table == "feature_aligned_expert":  # its networks with their trainings, then their seeds
        experts = space["table"].experts(scale)
        return [{expert.network: expert[1:6] for expert in experts}, list(experts[0].seeds)]
    if "table" in space:
        return list(space["table"].questions)
    if table == "diff_ii_main_job":
        return [space["question"]]
    longer = [space["ask_longer"](scale)] if "ask_longer" in space else []
    return (space["questions"] if "questions" in space else [space["ask"](scale)]) + longer


def unit_names(question):
    """The files of the runs of a question's first split: their names are hashes of all that decides the
    numbers."""
    run = open_run(question, question.data.split()[0], "nowhere", progress=False)
    return [run.path(arm, run.first, seed).name for arm in run.arms.values() for seed in question.repeats]


def record(table, scale, units=False):
    "What is compared: the questions, their homes, and the names of their runs."
    questions = asked(table, scale)
    comparisons = [question for question in questions if isinstance(question, Comparison)]
    lines = {
        "questions": list(map(plain, questions)),
        "homes": [str(table_places(table, "results").home(question)) for question in comparisons],
    }
    return lines | ({"units": [unit_names(question) for question in comparisons]} if units else {})


def digest(table, scale, units=False):
    "Each part of a record as one hash, so that the file stays small and says which part differs."
    return {
        name: content_hash(json.dumps(part, sort_keys=True))[:24]
        for name, part in record(table, scale, units).items()
    }


if __name__ == "__main__":
    result = {
        path.stem: {scale: digest(path.stem, scale, scale == "hour") for scale in ("seconds", "hour")}
        for path in sorted(TABLES.glob("[!_]*.ipynb"))
    }
    json.dump(result, sys.stdout, indent=1)
    print()
