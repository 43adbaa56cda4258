"The audit on sets with faults that its page does not plant."

import numpy as np
import pytest
from toy_sets import noise_set

from genaug.audit import (
    as_findings,
    audit,
    audit_duplicates,
    audit_memory,
    audit_sources,
    failures,
    sources_of,
)
from genaug.core import LabeledImages
from genaug.messages import GenaugError


def make(count, prefix, seed, info=None, task="single"):
    labels = np.arange(count) % 2 if task == "single" else np.ones((count, 2))
    return noise_set(labels, ("a", "b"), size=6, seed=seed, ids=prefix + "{}", task=task, info=info)


REAL, TEST = make(12, "train", 1), make(12, "test", 2)


def infos(*changed, count=8):
    plain = [
        {
            "sources": [[REAL.ids[i], 0.5], [REAL.ids[i + 1], 0.5]],
            "source_sha256": [REAL.sha256[i], REAL.sha256[i + 1]],
        }
        for i in range(count)
    ]
    return [*changed, *plain[len(changed) :]]


def broken(info):
    return {row.check for row in audit_sources(make(8, "row", 3, info), REAL, TEST) if row.passed is False}


def test_a_clean_set_passes():
    assert failures(audit(make(8, "row", 3, infos()), REAL, TEST)) == []


def test_an_earlier_row_may_be_a_source():
    assert broken(infos(infos()[0], {"sources": [["row0", 1.0]]})) == set()


def test_images_from_noise_need_the_fitted_set():
    assert broken(infos({"sources": [], "fitted_on": REAL.fingerprint()})) == set()
    assert broken(infos({"sources": [], "fitted_on": TEST.fingerprint()})) == {"fitted_on_training"}
    assert broken(infos({"sources": []})) == {"provenance_known"}
    assert broken(None) == {"provenance_known"}


def test_a_test_image_is_found_under_any_name():
    assert broken(infos({"sources": [["test4", 1.0]]})) == {"sources_are_training"}
    assert broken(infos({"sources": [["train0", 1.0]], "source_sha256": [TEST.sha256[4]]})) == {
        "sources_unchanged",
        "no_test_source",
    }
    leaked = REAL + make(12, "copy", 2)[[4]]  # a training set that holds a test image
    rows = {
        row.check: row for row in audit(make(8, "row", 3, infos({"sources": [["copy4", 1.0]]})), leaked, TEST)
    }
    assert rows["test_apart"].passed is False
    assert "copy4" in rows["test_apart"].message
    assert rows["no_test_source"].passed is False


def test_equal_images():
    # the seed of the training set again
    rows = {row.check: row for row in audit_duplicates(make(8, "row", 1), REAL, TEST)}
    assert rows["no_training_copy"].value == 8
    assert rows["no_test_copy"].passed
    same = LabeledImages(
        [REAL.image(0), REAL.image(0), TEST.image(1)], [0, 0, 1], ("a", "b"), ["x", "y", "z"]
    )
    rows = {row.check: row for row in audit_duplicates(same, REAL, TEST)}
    assert [
        rows[check].value for check in ("no_training_copy", "no_repeats", "no_test_copy", "test_apart")
    ] == [2, 2, 1, 0]


def test_memory_needs_no_test_set_and_copes_with_equal_photographs():
    twins = LabeledImages([REAL.image(0)] * 2, [0, 1], ("a", "b"), ["x", "y"])
    rows = audit_memory(make(8, "row", 3), twins)
    assert all(row.passed is None and np.isfinite(row.value) for row in rows)
    assert len(rows) == 2


def test_multi_label_sets_can_be_audited():
    rows = audit(
        make(8, "row", 3, infos(), "multi"),
        make(12, "train", 1, task="multi"),
        make(12, "test", 2, task="multi"),
    )
    assert failures(rows) == []


def test_sources_without_hashes_and_as_plain_names():
    assert sources_of({"sources": ["a", ["b", 0.5]]}) == [("a", None), ("b", None)]
    assert sources_of(None) == []


def test_bad_input():
    with pytest.raises(GenaugError, match="empty"):
        audit(make(0, "row", 0), REAL)
    other = LabeledImages([REAL.image(0)], [0], ("a", "c"), ["x"])
    with pytest.raises(GenaugError, match="class names"):
        audit(other, REAL)
    only = REAL[[0]]
    # one photograph has no fellow: no memory rows
    assert len(audit(make(8, "row", 3, infos()), only)) == 9


def test_hashes_are_those_of_the_pixels_and_not_those_recorded():
    claimed = make(8, "row", 3, infos())
    forged = LabeledImages(
        [REAL.image(0), *[claimed.image(i) for i in range(1, 8)]],
        claimed.targets,
        claimed.class_names,
        claimed.ids,
        info=claimed.info,
        digests=claimed.sha256,
    )
    broken_rules = {row.check for row in audit(forged, REAL, TEST) if row.passed is False}
    assert broken_rules == {"pixels_as_recorded", "no_training_copy"}


def test_blank_images_are_suspicious_unless_photographs_of_the_class_are_blank():
    blank = np.full((6, 6, 3), 9, np.uint8)
    pixels = [blank, *[REAL.image(i) for i in range(1, 12)]]
    # one blank photograph of class a
    some = LabeledImages(pixels, REAL.targets, REAL.class_names, REAL.ids)

    def rows(label, real):
        return {
            row.check: row
            for row in audit(
                LabeledImages(
                    [np.full((6, 6, 3), 30, np.uint8)],
                    [label],
                    ("a", "b"),
                    ["row0"],
                    info=[{"sources": [["train1", 1.0]]}],
                ),
                real,
            )
        }

    assert rows(0, REAL)["no_blank_images"].passed is False
    assert rows(0, some)["no_blank_images"].passed is True
    assert rows(1, some)["no_blank_images"].passed is False


def test_a_model_fitted_on_the_same_photographs_in_another_order_is_no_leak():
    turned = REAL[list(range(11, -1, -1))]
    header = {"photographs": {"ordered": turned.fingerprint(), "content": turned.content_identity()}}
    rows = {
        row.check: row
        for row in audit(
            make(8, "row", 3, [{"sources": [], "fitted_on": turned.fingerprint()}] * 8),
            REAL,
            TEST,
            header=header,
        )
    }
    assert rows["fitted_on_training"].passed is True


def test_findings_are_errors_where_something_leaked_and_warnings_where_it_is_suspicious():
    same = LabeledImages(
        [REAL.image(0), TEST.image(1)],
        [0, 1],
        ("a", "b"),
        ["x", "y"],
        info=[{"sources": [["train0", 1.0]]}] * 2,
    )
    severities = {finding.kind: finding.severity for finding in as_findings(audit(same, REAL, TEST))}
    assert severities["no_test_copy"] == "error"
    assert severities["no_training_copy"] == "warning"
    assert severities["provenance_known"] == "note"


def test_a_mirrored_smaller_test_image_is_suspicious():
    draw = np.random.default_rng(4)
    blocks = [
        np.kron(draw.integers(0, 256, (8, 8, 3)), np.ones((4, 4, 1))).astype(np.uint8) for _ in range(40)
    ]
    real, held_out = (
        LabeledImages(
            blocks[start : start + 20],
            [i % 2 for i in range(20)],
            ("a", "b"),
            [f"{name}{i}" for i in range(20)],
        )
        for start, name in ((0, "train"), (20, "test"))
    )
    copy = LabeledImages(
        [np.ascontiguousarray(held_out.image(5)[:, ::-1])],
        [0],
        ("a", "b"),
        ["row0"],
        info=[{"sources": [["train0", 1.0]]}],
    )
    row = {row.check: row for row in audit(copy, real, held_out)}["no_near_test_copy"]
    assert row.passed is False
    assert "test5, mirrored" in row.message
