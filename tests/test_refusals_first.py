"""All refusals come before any work: nothing is opened, learned or painted, and nothing is left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import genaug.cli as cli
from genaug.commands import augment as augmenting
from genaug.commands.options import USES
from genaug.commands.terminal import Refusal
from genaug.commands.values import read_numbers, read_shots

ROOT = Path(__file__).resolve().parent.parent


def paint_folder(root, parts=("",), classes=("owl", "wren"), count=3):
    "A folder of small pictures, each with values of its own."
    draw = np.random.default_rng(0)
    for part in parts:
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(draw.integers(0, 255, (16, 16, 3)).astype(np.uint8)).save(
                    root / part / name / f"{number}.png"
                )
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return paint_folder(tmp_path_factory.mktemp("refusals") / "photos")


@pytest.fixture
def no_work(monkeypatch):
    "Learning, painting and training fail the test."
    from genaug import compare, contracts, evaluators, experiment, synthesis

    def work(*_, **__):
        raise AssertionError("work was begun")

    for module, name in (
        (synthesis, "paint_plan"),
        (compare, "run_experiment"),
        (evaluators, "find_evaluators"),
        (experiment, "prepare_training"),
    ):
        monkeypatch.setattr(module, name, work)
    for kind in (
        *contracts.Augmenter.__subclasses__(),
        *(deeper for kind in contracts.Augmenter.__subclasses__() for deeper in kind.__subclasses__()),
    ):
        if "fit" in vars(kind):
            monkeypatch.setattr(
                kind, "fit", lambda self, *arguments, **more: work() if len(arguments) > 1 or more else self
            )


@pytest.fixture
def unopened(monkeypatch):
    "Opening pictures fails the test."
    from genaug import datasets
    from genaug.data import sources

    def opened(*_, **__):
        raise AssertionError("pictures were opened")

    monkeypatch.setattr(datasets, "load", opened)
    monkeypatch.setattr(sources, "check_folder", opened)


def refused(capsys, *arguments):
    "The sentence with which a command was refused."
    code = cli.run([str(argument) for argument in arguments])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1
    assert lines[0].startswith("genaug: ")
    assert "Fault of the program" not in lines[0]
    assert code == 2
    return lines[0]


AT_ONCE = {
    "condition": (["compare", "digits", "--condition", "validaton"], "did you mean 'validation'?"),
    "condition of augment": (
        ["augment", "digits", "OUT", "--condition", "corelated"],
        "did you mean 'correlated'?",
    ),
    "use": (["compare", "digits", "--use", "apend"], "did you mean 'append'?"),
    "scale": (["reproduce", "diff_ii_main_job", "--scale", "hours"], "did you mean 'hour'?"),
    "test part": (["compare", "digits", "--test-part", "tset"], "did you mean 'test'?"),
    "test part that is trained on": (
        ["compare", "digits", "--test-part", "train"],
        "--test-part is test, shifted or val",
    ),
    "device": (["compare", "digits", "--device", "gpu"], "There is no device 'gpu'"),
    "device of augment": (["augment", "digits", "OUT", "--device", "meta"], "There is no device 'meta'"),
    "endless seeds": (["compare", "digits", "--seeds", "0-1000000000000"], "more than 10,000 splits"),
    "backward seeds": (["compare", "digits", "--seeds", "3-1"], "write the smaller one first"),
    "no seeds": (["compare", "digits", "--seeds", ""], "--seeds is a count"),
    "hole in the seeds": (["compare", "digits", "--seeds", "1,,2"], "--seeds is a count"),
    "minus seeds": (["compare", "digits", "--seeds", "-1"], "--seeds is a count"),
    "Arabic digits": (["compare", "digits", "--seeds", "٣"], "--seeds is a count"),
    "superscript shots": (["compare", "digits", "--shots", "²"], "--shots is a number"),
    "Arabic shots": (["augment", "digits", "OUT", "--shots", "٣"], "--shots is a number"),
    "infinite copies": (["augment", "digits", "OUT", "--copies", "inf"], "--copies is a number above 0"),
    "copies that are no number": (
        ["augment", "digits", "OUT", "--copies", "nan"],
        "--copies is a number above 0",
    ),
    "endless copies": (["compare", "digits", "--copies", "1e9"], "at most 10,000"),
    "minus zero copies": (["compare", "digits", "--copies", "-0"], "--copies is a number above 0"),
    "endless repeats": (["compare", "digits", "--repeats", "1000000"], "from 1 to 1,000"),
    "endless updates": (["compare", "digits", "--updates", "1000000000000"], "--updates is a whole number"),
    "endless batch": (
        ["augment", "digits", "OUT", "--batch-size", "1000000000"],
        "--batch-size is a whole number",
    ),
    "endless size": (["check", "digits", "--min-size", "1000000000"], "--min-size is a whole number"),
    "seed beyond 64 bits": (
        ["augment", "digits", "OUT", "--seed", "99999999999999999999"],
        "from 0 to 9,223,372,036,854,775,807",
    ),
    "seeds beyond 64 bits": (
        ["compare", "digits", "--seeds", "99999999999999999999,1"],
        "beyond 2,147,483,647",
    ),
    "share that is no number": (
        ["compare", "digits", "--test-share", "nan"],
        "--test-share is a number above 0",
    ),
    "share of everything": (["compare", "digits", "--test-share", "1"], "below 1"),
    "imbalance below one": (
        ["compare", "digits", "--shots", "none", "--imbalance", "0.5"],
        "--imbalance is a number of at least 1",
    ),
    "null byte": (["check", "a\0b"], "null byte"),
    "no valid UTF-8": (["check", "a\udcff"], "not valid UTF-8"),
    "empty OUT": (["augment", "digits", ""], "OUT is empty"),
    "empty source": (["check", ""], "SOURCE is empty"),
    "long source": (["check", "x" * 100_000], "at most 4,000 characters"),
    "unknown home": (
        ["augment", "digits", "~nobody-of-that-name/x"],
        "home folder of a user who is not known",
    ),
    "escape in the metaclass": (
        ["augment", "digits", "OUT", "--metaclass", "bird\x1b[2J"],
        "control or invisible characters",
    ),
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_what_is_mistyped_is_refused_before_anything_is_opened(
    name, capsys, tmp_path, monkeypatch, unopened, no_work
):
    arguments, words = AT_ONCE[name]
    monkeypatch.chdir(tmp_path)
    assert words in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_what_is_mistyped_is_refused_without_importing_torch(tmp_path):
    code = (
        "import sys; from genaug.cli import run; codes = [run(arguments) for arguments in "
        f"{[arguments for arguments, _ in AT_ONCE.values()]!r}]; print(set(codes), 'torch' in sys.modules, "
        "'numpy' in sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert shown.stdout.strip() == "{2} False False", shown.stdout + shown.stderr[-2000:]


BEFORE_PICTURES = {
    "weights that do not exist": (
        ["compare", "digits", "--classifier-weights", "no/such.safetensors"],
        "no/such.safetensors",
    ),
    "weights of another network": (["compare", "digits", "--classifier-weights", "tv_in1k"], "tv_in1k"),
    "network": (
        ["compare", "digits", "--methods", "original", "--classifier", "resnet51"],
        "no network 'resnet51'",
    ),
    "backbone": (["augment", "digits", "OUT", "--backbone", "no/such/model"], "no/such/model"),
    "backbone that is a file": (["augment", "digits", "OUT", "--backbone", "/dev/null"], "/dev/null"),
    "suffix file": (["augment", "digits", "OUT", "--suffixes", "nowhere.txt"], "does not exist"),
    "suffix device": (["augment", "digits", "OUT", "--suffixes", "/dev/zero"], "does not exist"),
    "published list": (["augment", "digits", "OUT", "--suffixes", "published:cub-6-shot"], "did you mean"),
    "condition of a set without it": (
        ["compare", "digits", "--condition", "correlated"],
        "only the built-in digit-scenes has it",
    ),
    "last arm": (["compare", "digits", "--methods", "original,round-trip,mixup@alpha=-1"], "alpha"),
    "arm with an unknown use": (["compare", "digits", "--methods", "original,real-gen@use=foo"], "foo"),
    "arm with an unknown weigh": (
        ["augment", "digits", "OUT", "--method", "real-gen@weigh=banana"],
        "banana",
    ),
    "arm with an impossible share": (
        ["augment", "digits", "OUT", "--method", "real-gen@replace=2"],
        "replace",
    ),
    "words for a number": (
        ["augment", "digits", "OUT", "--method", "real-gen@guidance_scale=abc"],
        "guidance_scale",
    ),
    "half a step": (
        ["augment", "digits", "OUT", "--method", "real-gen@num_inference_steps=2.5"],
        "num_inference_steps",
    ),
    "group": (["compare", "digits", "--methods", "control"], "did you mean 'controls'?"),
    "shots and imbalance": (
        ["augment", "digits", "OUT", "--shots", "2", "--imbalance", "3"],
        "--shots none together with --imbalance",
    ),
    "device that is not there": (["augment", "digits", "OUT", "--device", "cpu:3"], "counted from 0"),
    "captioner": (["suffixes", "digits", "OUT", "--captioner", "no/such/blip/folder"], "no/such/blip/folder"),
    "model without an address": (
        ["suffixes", "digits", "OUT", "--llm-model", "gpt"],
        "give the address with --llm",
    ),
    "paper without data": (
        ["reproduce", "diff_ii_main_job", "--scale", "paper"],
        "--data cub=FOLDER (CUB-200-2011) for cub 5-shot resnet50",
    ),
    "data that do not exist": (
        ["reproduce", "diff_ii_main_job", "--data", "cub=no/such/folder"],
        "no/such/folder",
    ),
    "methods of a table": (
        ["reproduce", "diff_ii_main_job", "--methods", "diff-i"],
        "did you mean 'diff-ii'?",
    ),
}


@pytest.mark.parametrize("name", BEFORE_PICTURES)
def test_what_is_not_there_is_refused_before_pictures_are_opened(
    name, capsys, tmp_path, monkeypatch, unopened, no_work
):
    arguments, words = BEFORE_PICTURES[name]
    monkeypatch.chdir(tmp_path)
    assert words in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_not_replaced_by_a_list_of_suffixes(capsys, tmp_path, unopened):
    os.mkfifo(tmp_path / "pipe")
    assert "device or pipe" in refused(capsys, "suffixes", "digits", tmp_path / "pipe", "--replace")
    assert (tmp_path / "pipe").is_fifo()


def places(photos, tmp_path):
    "Result folders that lie among the photographs or hold them, by name."
    (tmp_path / "door").symlink_to(photos)
    return {
        "inside": photos / "out",
        "deep inside": photos / "owl" / "new" / "out",
        "itself": photos,
        "through a link": tmp_path / "door" / "out",
        "with dots": photos / "owl" / ".." / "out",
        "around": photos.parent,
    }


@pytest.mark.parametrize("command", ["augment", "compare"])
@pytest.mark.parametrize("name", ["inside", "deep inside", "itself", "through a link", "with dots", "around"])
def test_a_result_among_the_photographs_is_refused_before_they_are_opened(
    command, name, photos, capsys, tmp_path, unopened, no_work
):
    before, out = sorted(photos.rglob("*")), places(photos, tmp_path)[name]
    arguments = [command, photos, out] if command == "augment" else [command, photos, "--out", out]
    refused(capsys, *arguments, "--method" if command == "augment" else "--methods", "diff-ii")
    assert sorted(photos.rglob("*")) == before


@pytest.mark.parametrize("out", ["/dev/null", "/dev/null/x", "/proc/x", "x" * 300, "file/x"])
def test_a_result_that_cannot_be_made_is_refused_before_pictures_are_opened(
    out, capsys, tmp_path, monkeypatch, unopened, no_work
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    refused(capsys, "augment", "digits", out)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_begun_with_another_method_is_refused_before_learning(capsys, tmp_path, monkeypatch):
    assert (
        cli.run(
            [
                "augment",
                "digits",
                str(tmp_path / "out"),
                "--method",
                "smote",
                "--shots",
                "2",
                "--copies",
                "1",
                "--quiet",
            ]
        )
        == 0
    )
    before = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if "lock" not in path.name
    }
    capsys.readouterr()
    from genaug.recipe import Recipe

    fit = Recipe.fit
    monkeypatch.setattr(
        Recipe,
        "fit",
        lambda self, real, workdir=None, progress=False: (
            fit(self, real, workdir, progress) if workdir is None else 1 / 0
        ),
    )
    assert "the method" in refused(
        capsys,
        "augment",
        "digits",
        tmp_path / "out",
        "--method",
        "diff-ii",
        "--shots",
        "2",
        "--copies",
        "1",
        "--quiet",
    )
    assert "the budget" in refused(
        capsys,
        "augment",
        "digits",
        tmp_path / "out",
        "--method",
        "smote",
        "--shots",
        "2",
        "--copies",
        "2",
        "--quiet",
    )
    assert {
        path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if "lock" not in path.name
    } == before


def test_a_comparison_of_other_data_is_refused_before_the_judge_is_trained(
    capsys, tmp_path, unopened, no_work
):
    from genaug.comparison import Comparison
    from genaug.comparison_folder import claim_comparison

    claim_comparison(
        tmp_path / "out", Comparison(("original",), "digits", 2, splits=(0,), repeats=(0,)), "digits"
    )
    assert "the number of shots changed" in refused(
        capsys,
        "compare",
        "digits",
        "--shots",
        "1",
        "--methods",
        "original,round-trip",
        "--measure",
        "--out",
        tmp_path / "out",
    )


def test_refusals_take_seconds_also_for_the_papers_settings(capsys, tmp_path, photos):
    began = time.process_time()
    refused(capsys, "augment", photos, photos / "out", "--method", "diff-ii", "--copies", "1000")
    assert time.process_time() - began < 5


def test_a_budget_of_nothing_is_refused_before_learning(capsys, tmp_path, no_work):
    assert "no image" in refused(
        capsys,
        "augment",
        "digits",
        tmp_path / "out",
        "--method",
        "da-fusion",
        "--shots",
        "1",
        "--copies",
        "0.01",
        "--quiet",
    )
    assert not (tmp_path / "out").exists()


def test_a_budget_of_millions_is_refused_without_counting_to_it(photos, monkeypatch):
    from genaug.data.folders import open_folder
    from genaug.plans import Budget

    monkeypatch.setattr(augmenting, "MOST_IMAGES", 5000)
    with pytest.raises(Refusal, match="more than 5,000"):
        augmenting.check_amount(Budget(1_000_000), open_folder(photos)["all"])


IDLE = {
    "metaclass": (
        ["augment", "digits", "OUT", "--method", "smote", "--metaclass", "digit"],
        "--metaclass has no effect here: smote uses no prompts",
    ),
    "suffixes": (
        ["augment", "digits", "OUT", "--method", "smote", "--suffixes", "published:cub-5-shot"],
        "--suffixes has no effect here",
    ),
    "backbone": (
        ["augment", "digits", "OUT", "--method", "smote", "--backbone", "some/model"],
        "--backbone has no effect here",
    ),
    "copies beside a total": (
        ["augment", "digits", "OUT", "--method", "smote", "--total", "9", "--copies", "2"],
        "--copies has no effect here: --total says",
    ),
    "tuning": (
        ["augment", "digits", "OUT", "--method", "smote", "--condition", "validation"],
        "--condition has no effect here: only `genaug compare` tunes",
    ),
    "use of a set": (
        ["augment", "digits", "OUT", "--method", "smote@use=append;weigh=loss"],
        "use, weigh in 'smote@use=append;weigh=loss' has no effect here",
    ),
    "replace": (
        ["compare", "digits", "--methods", "original,mixup", "--replace", "0.3"],
        "--replace has no effect here: no arm makes images",
    ),
    "replace of what is appended": (
        ["compare", "digits", "--methods", "smote", "--use", "append", "--replace", "0.3"],
        "--replace has no effect here: no arm puts its images",
    ),
    "measure": (
        ["compare", "digits", "--methods", "original,mixup", "--measure"],
        "--measure has no effect here: no arm makes images",
    ),
    "copies": (
        ["compare", "digits", "--methods", "original", "--copies", "3"],
        "--copies has no effect here: no arm makes images",
    ),
    "test share": (
        ["compare", "digits", "--methods", "original", "--test-share", "0.4"],
        "--test-share has no effect here: the data have a test part",
    ),
    "shots of a published list": (
        ["suffixes", "digits", "OUT", "--published", "cub-5-shot", "--shots", "3"],
        "--shots has no effect here: a published list",
    ),
}


@pytest.mark.parametrize("name", IDLE)
def test_an_option_without_effect_is_named(name, capsys, tmp_path, monkeypatch):
    from genaug import compare, suffixes

    arguments, words = IDLE[name]

    def stop(*_, **__):
        return (_ for _ in ()).throw(Refusal("Enough seen."))

    monkeypatch.setattr(augmenting, "paint_order", stop)
    monkeypatch.setattr(compare, "compare", stop)
    monkeypatch.setattr(suffixes, "filter_suffixes", stop)
    monkeypatch.chdir(tmp_path)
    assert cli.run([*arguments, "--quiet"]) == 2
    assert words in capsys.readouterr().out


def test_words_of_closed_sets_are_those_of_the_library():
    from genaug import schedule

    assert tuple(schedule.USES) == USES


def test_what_was_asked_for_before_can_be_asked_again(capsys):
    "Values that were valid stay valid."
    assert read_numbers("0,2,5-7") == (0, 2, 5, 6, 7)
    assert read_numbers("3", 100) == (100, 101, 102)
    assert read_shots(" 5 ") == 5
    assert read_shots("All") is None
