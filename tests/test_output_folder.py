"""Everything that is wrong with the result folder is said before any work, and nothing is left behind."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from toy_world import toy_backbone, toy_photographs

from genaug import result_folder
from genaug.choices import ClassName, LearnedTokens
from genaug.core import LabeledImages
from genaug.messages import GenaugError
from genaug.methods.diff_ii import diff_ii
from genaug.methods.real_guidance import real_guidance
from genaug.pictures import encode_png
from genaug.plans import Budget
from genaug.result_folder import check_output, refuse_other_run
from genaug.synthesis import synthesize


def refusal(call, *arguments, **options):
    with pytest.raises(GenaugError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def photos(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "a.png").write_bytes(encode_png(np.zeros((8, 8, 3), np.uint8)))
    return tmp_path / "photos"


GOOD = ("new", "deep/er/new", "empty", "photos-2", "link to empty", "ünï códe", "-dash")


@pytest.mark.parametrize("name", GOOD)
def test_a_folder_that_can_be_used_is_accepted_and_left_alone(tmp_path, photos, name):
    (tmp_path / "empty").mkdir(), (tmp_path / "link to empty").symlink_to(tmp_path / "empty")
    before = tree(tmp_path)
    check_output(tmp_path / name, [photos], ["plan.jsonl"])
    assert tree(tmp_path) == before


def wrong_folders(tmp_path, photos):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir(), (tmp_path / "full" / "letter.txt").write_text("dear")
    (tmp_path / "to photos").symlink_to(photos)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return {
        "file": (tmp_path / "file", "is a file"),
        "below a file": (tmp_path / "file" / "out", "is a file"),
        "not empty": (tmp_path / "full", "not empty"),
        "the source": (photos, "inside one another"),
        "inside the source": (photos / "out", "inside one another"),
        "deep inside": (photos / "new" / "er" / "out", "inside one another"),
        "around the source": (tmp_path, "inside one another"),
        "through a link": (tmp_path / "to photos" / "out", "inside one another"),
        "the link": (tmp_path / "to photos", "inside one another"),
        "dots": (tmp_path / "x" / ".." / "photos" / "out", "inside one another"),
        "dangling link": (tmp_path / "dangling", "does not exist"),
        "below a dangling link": (tmp_path / "dangling" / "out", "does not exist"),
        "loop of links": (tmp_path / "loop" / "out", ""),
        "long name": (tmp_path / ("long" * 99), "too long"),
        "long name below": (tmp_path / "new" / ("ü" * 200), "too long"),
        "NUL": (f"{tmp_path}/a\0b", "NUL"),
        "empty": ("", "empty"),
        "space": ("  ", "empty"),
        "here": (".", "current folder"),
        "root": ("/", "root of the disk"),
        "home": ("~", "your home"),
        "no such home": ("~nobody-has-this-name/out", ""),
        "pseudo": ("/proc/out", ""),
        "below proc": ("/proc/self/out", ""),
    }


NAMES = (
    "file",
    "below a file",
    "not empty",
    "the source",
    "inside the source",
    "deep inside",
    "around the source",
    "through a link",
    "the link",
    "dots",
    "dangling link",
    "below a dangling link",
    "loop of links",
    "long name",
    "long name below",
    "NUL",
    "empty",
    "space",
    "here",
    "root",
    "home",
    "no such home",
    "pseudo",
    "below proc",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_cannot_be_used_is_refused_and_nothing_is_left(tmp_path, photos, name):
    folder, words = wrong_folders(tmp_path, photos)[name]
    before = tree(tmp_path)
    assert words in refusal(check_output, folder, [photos], ["plan.jsonl"])
    assert tree(tmp_path) == before


def test_a_source_that_lies_in_the_result_folder_through_a_link(tmp_path, photos):
    (tmp_path / "out").mkdir(), (tmp_path / "seen").symlink_to(tmp_path / "out" / "photos")
    photos.rename(tmp_path / "out" / "photos")
    assert "inside one another" in refusal(check_output, tmp_path / "out", [tmp_path / "seen"], ["photos"])


def test_a_folder_that_this_command_began_is_accepted(tmp_path):
    (tmp_path / "plan.jsonl").write_text("")
    check_output(tmp_path, (), ["plan.jsonl"])
    assert "not begun" in refusal(check_output, tmp_path, (), ["comparison.json"])


def as_nobody(work):
    """Run `work` in a child without the privileges of root, which permissions do not stop; True when it
    returned."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([]), os.setgid(65534), os.setuid(65534)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="privileges can only be dropped by root")
@pytest.mark.parametrize("name", ["locked/out", "locked/deep/out", "shut/out"])
def test_a_folder_that_is_not_ours_to_write(name):
    import shutil
    import tempfile

    home = Path(tempfile.mkdtemp(dir="/tmp"))
    home.chmod(0o755)
    (home / "locked").mkdir(mode=0o555), (home / "shut").mkdir(mode=0o000)
    try:
        assert as_nobody(lambda: refusal(check_output, home / name))
    finally:
        shutil.rmtree(home)


@pytest.mark.parametrize(
    "number, words", [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EDQUOT, "quota")]
)
def test_a_disk_that_takes_nothing_is_found_by_trying(tmp_path, monkeypatch, number, words):
    def full(*arguments, **options):
        raise OSError(number, "no")

    monkeypatch.setattr(result_folder.tempfile, "mkdtemp", full)
    assert words in refusal(check_output, tmp_path / "out")


METHODS = {
    "settings": {"num_inference_steps": 5},
    "learning": {"naming": LearnedTokens(steps=3)},
    "name": {"name": "other"},
}


def toy_method(**changes):
    return diff_ii(
        **{**{"naming": ClassName(), "backbone": toy_backbone(), "num_inference_steps": 4}, **changes}
    )


@pytest.mark.parametrize("change", [*METHODS, "seed", "budget", "photographs", "method"])
def test_a_folder_begun_with_something_else_is_refused_before_learning(tmp_path, change):
    real = toy_photographs()
    synthesize(toy_method().fit(real), real, tmp_path / "out", Budget(copies=1), 0, progress=False)
    before = tree(tmp_path)
    method = (
        real_guidance(backbone=toy_backbone())
        if change == "method"
        else toy_method(**METHODS.get(change, {}))
    )
    arguments = (
        toy_photographs(seed=1) if change == "photographs" else real,
        Budget(copies=2 if change == "budget" else 1),
        int(change == "seed"),
    )
    assert "was begun with something else" in refusal(refuse_other_run, tmp_path / "out", method, *arguments)
    assert tree(tmp_path) == before


def test_the_same_run_is_not_refused_before_learning(tmp_path):
    real = toy_photographs()
    synthesize(toy_method().fit(real), real, tmp_path / "out", Budget(copies=1), 0, progress=False)
    refuse_other_run(tmp_path / "out", toy_method(), real, Budget(copies=1), 0)
    refuse_other_run(tmp_path / "new", toy_method(), real, Budget(copies=1), 0)
    assert not (tmp_path / "new").exists()


def test_photographs_of_several_folders_are_all_looked_at(tmp_path):
    paths = []
    for name in ("one", "two"):
        (tmp_path / name / "cat").mkdir(parents=True)
        paths.append(tmp_path / name / "cat" / f"{name}.png")
        paths[-1].write_bytes(encode_png(np.full((8, 8, 3), len(name), np.uint8)))
    real = LabeledImages(paths, np.array([0, 1]), ("cat", "dog"), ["cat/one.png", "cat/two.png"])
    method = toy_method().fit(toy_photographs())
    method.fitted_on = real.fingerprint()
    assert "inside one another" in refusal(
        synthesize, method, real, tmp_path / "two" / "out", Budget(copies=1), 0, progress=False
    )
    assert not (tmp_path / "two" / "out").exists()
