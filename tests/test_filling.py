"Filling a list of cells: jobs, processes, time limits, broken work, and whether rows are made again alike."

import ast
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genaug.filling import (
    Job,
    Wanted,
    fill_list,
    first_splits,
    jobs_of,
    joined_questions,
    open_table,
    question_of,
    read_wanted,
    repeated_runs,
    split_numbers,
)
from genaug.messages import GenaugError
from genaug.results import read_rows

ROOT = Path(__file__).resolve().parent.parent
TABLE, PART = "diff_ii_main_job", "digit-scenes, letters"
LINES = [Wanted(TABLE, PART, arm, (0, 1)) for arm in ("original", "mixup", "round-trip")]
SILENT = {"scale": "seconds", "say": lambda line: None}


def rows_of(folder):
    "What a table's file holds, without times."
    rows = read_rows(folder / f"{TABLE}.csv").drop(columns=["wall_s"])
    return rows.sort_values(list(rows.columns)).reset_index(drop=True)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    "The rows that one process gives, all arms of the two splits at once."
    folder = tmp_path_factory.mktemp("straight") / "results"
    table = open_table(TABLE, "seconds", results=str(folder))
    for split in (0, 1):
        table.fill_questions(joined_questions(table, [line._replace(splits=(split,)) for line in LINES]))
    return folder


def test_the_list_of_the_project_can_be_served():
    wanted = read_wanted(ROOT / "nbs/tables/ten_splits.csv")
    assert len({line[:3] for line in wanted}) == len(wanted)
    assert {line.splits for line in wanted} == {tuple(range(10))}


def test_presets_name_the_data_of_their_pages():
    for file in sorted((ROOT / "nbs/tables/presets").glob("*.json")):
        page = json.loads(file.read_text(encoding="utf-8")).get("page", {})
        notebook = ROOT / "nbs/tables" / f"{file.stem}.ipynb"
        if not notebook.is_file():
            continue  # rows of another page
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        tagged = [
            "".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", ())
        ]
        assigned = {node.targets[0].id: node.value for node in ast.parse(tagged[0]).body}
        usual = ast.literal_eval(assigned["data"])
        if "data" in page or usual not in ({"digit-scenes": "digit-scenes"}, {"textures": "textures"}, None):
            assert page.get("data") == usual, file.stem


@pytest.mark.parametrize(
    "line, words",
    [
        ("no_such_table,x,original,0,1", "no_such_table"),
        (f'{TABLE},"{PART}",cutmix,0,1', "has no arm 'cutmix'"),
        (f"{TABLE},another part,original,0,1", "in a part 'another part'"),
        (f'{TABLE},"{PART}",original,zero,1', "cannot be read"),
        (f'{TABLE},"{PART}",original,0,first', "cannot be read"),
        (f'{TABLE},"{PART}",original', "cannot be read"),
    ],
)
def test_a_line_that_no_table_can_serve_is_refused(tmp_path, line, words):
    file = tmp_path / "list.csv"
    file.write_text(f"table,part,arm,splits,turn\n{line}\n", encoding="utf-8")
    with pytest.raises(GenaugError, match=words):
        read_wanted(file, "seconds")


def test_a_list_without_its_columns_is_refused(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text("table,arm\na,b\n", encoding="utf-8")
    with pytest.raises(GenaugError, match="with the columns table, part, arm"):
        read_wanted(file)


@pytest.mark.parametrize("text, numbers", [("3", (3,)), ("0-3", (0, 1, 2, 3)), ("7,1-2", (7, 1, 2))])
def test_numbers_of_a_text(text, numbers):
    assert split_numbers(text) == numbers


def test_the_first_turn_and_its_longest_jobs_begin_first(tmp_path):
    lines = [
        Wanted("diff_ii_few_shot", "digit-scenes 5-shot, letters", "diff-ii", (0,), 2),
        Wanted("diff_ii_few_shot", "digit-scenes 5-shot, letters", "original", (0,), 2),
        Wanted("diff_ii_few_shot", "digit-scenes 5-shot, letters", "mixup", (1,), 1),
    ]
    jobs = jobs_of(lines, everything=True)
    assert [(job.turn, job.method) for job in jobs] == [(1, ""), (2, "diff-ii"), (2, "")]
    assert jobs[1].seconds > jobs[2].seconds


def test_tables_share_the_job_of_a_draw_and_a_method(tmp_path):
    lines = [
        Wanted("diff_ii_few_shot", "digit-scenes 5-shot, letters", "diff-ii", (4,)),
        Wanted("diff_ii_few_shot", "digit-scenes 5-shot, wide", "diff-ii", (4,)),
        Wanted("generator_free_baselines", "5 images per class", "diff-ii+cutmix", (4,)),
        Wanted("generator_free_baselines", "long tail, IF 100", "diff-ii+cutmix", (4,)),
    ]
    jobs = jobs_of(lines, results=str(tmp_path))
    assert sorted(len(job.wanted) for job in jobs) == [1, 3]


def test_two_processes_give_the_rows_of_one(tmp_path, straight):
    settings = {"results": str(tmp_path / "results")}
    jobs = jobs_of(LINES, "seconds", **settings)
    assert len(jobs) == 4
    assert fill_list(jobs, 2, settings=settings, **SILENT) == []
    assert rows_of(tmp_path / "results").equals(rows_of(straight))
    assert jobs_of(LINES, "seconds", **settings) == []


def test_arms_without_a_generator_name_the_backbone_of_their_part(tmp_path, straight):
    table = open_table(TABLE, "seconds", results=str(tmp_path))
    table.fill_questions([question_of(table, LINES[0]._replace(splits=(0,)))])
    whole = rows_of(straight)
    assert set(rows_of(tmp_path).backbone) == set(whole[whole.method == "round-trip"].backbone)


def test_a_job_that_fails_does_not_stop_the_next(tmp_path):
    good = {"results": str(tmp_path / "results")}
    jobs = jobs_of(LINES[:1], "seconds", **good)
    bad = Job("nowhere", 0, "", (Wanted(TABLE, "no such part", "original", (0,)),))
    heard = []
    failed = fill_list([bad, *jobs], 1, scale="seconds", settings=good, say=heard.append)
    assert len(failed) == 1
    assert "has no arm 'original' in a part 'no such part'" in failed[0]
    assert len(heard) == 3
    assert jobs_of(LINES[:1], "seconds", **good) == []


def test_a_worker_that_is_killed_is_one_failed_job(tmp_path, monkeypatch):
    settings = {"results": str(tmp_path / "results")}
    jobs = jobs_of(LINES[:2], "seconds", **settings)
    from genaug import filling

    begun, start = [], filling.Worker.start.__func__

    def counted(cls, *given):
        worker = start(cls, *given)
        if not begun:
            os.kill(worker.process.pid, signal.SIGKILL)
        begun.append(worker)
        return worker

    monkeypatch.setattr(filling.Worker, "start", classmethod(counted))
    failed = fill_list(jobs, 1, settings=settings, **SILENT)
    assert len(begun) == 2
    assert len(failed) == 1
    assert "ended with status -9" in failed[0]
    assert len(jobs_of(LINES[:2], "seconds", **settings)) == 1


def test_what_is_stopped_by_the_clock_is_finished_by_the_next_call(tmp_path, straight):
    settings = {"results": str(tmp_path / "results")}
    heard = []
    jobs = jobs_of(LINES, "seconds", **settings)
    given = {"scale": "seconds", "settings": settings, "say": heard.append}
    assert fill_list(jobs, 2, minutes=0.1, **given) == []
    assert heard[-1].startswith("The time is up: ")
    assert fill_list(jobs_of(LINES, "seconds", **settings), 2, settings=settings, **SILENT) == []
    assert rows_of(tmp_path / "results").equals(rows_of(straight))


def test_workers_end_with_the_process_that_began_them(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from genaug.filling import Worker\n"
        "if __name__ == '__main__':\n"
        "    print(Worker.start('seconds', {}).process.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(300):
        stat = Path(f"/proc/{worker}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker went on without its parent")


def test_a_check_repeats_the_first_split_that_has_rows(tmp_path, straight):
    settings = {"results": str(straight)}
    lines = [*LINES, LINES[0]._replace(splits=(7, 1)), LINES[0]._replace(splits=(8,))]
    assert [line.splits for line in first_splits(lines, "seconds", **settings)] == [(0,), (0,), (0,), (1,)]


def test_repeated_runs_are_compared_key_by_key(tmp_path, straight):
    with open(straight / f"{TABLE}.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        if (row["metric"], row["part"], row["split"], row["method"]) == ("accuracy", "", "1", "mixup"):
            row["value"], row["device"] = str(float(row["value"]) + 0.02), "cuda"
    with open(tmp_path / f"{TABLE}.csv", "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    runs = repeated_runs(straight, tmp_path)
    apart = runs[runs.difference != 0]
    assert len(runs) == 6
    assert set(apart.difference) == {2.0}
    assert set(apart["device again"]) == {"cuda"}
    assert len(repeated_runs(straight, tmp_path / "empty")) == 0


def test_no_worker_is_refused_before_any_work():
    with pytest.raises(GenaugError, match="at least one worker"):
        fill_list([], 0)
