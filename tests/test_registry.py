import pytest
from toy_world import toy_backbone

from genaug.arms import make_arm, parse_arm, parse_methods, parse_value, show_value, tiny_settings
from genaug.messages import GenaugError
from genaug.registry import method_names, methods
from genaug.schedule import Append, SwapClass


@pytest.mark.parametrize("name", method_names())
def test_every_method_becomes_an_arm_of_its_kind(name):
    arm = make_arm(name, toy_backbone(), suffixes=("on grass",))
    kind = {method.name: method.kind for method in methods()}[name]
    assert arm.text == name
    assert (arm.augmenter is not None) == (kind == "augmenter") == (arm.use is not None)
    assert (arm.mixer is not None) == (kind == "mixer")
    if arm.augmenter is not None:
        assert arm.augmenter.name == name


@pytest.mark.parametrize("value", [3, 0.25, True, False, None, "slerp", (0.5, 0.7), (0.5,), 1e-05])
def test_values_survive_their_text(value):
    assert parse_value(show_value(value)) == value
    assert type(parse_value(show_value(value))) is type(value)


def test_canonical_text_is_a_fixed_point_and_order_does_not_matter():
    arm = parse_arm(" diff-ii@ split_ratio = 1 ; guidance_scale=3+cutmix ")
    assert (
        arm.canonical()
        == "diff-ii@guidance_scale=3;split_ratio=1+cutmix"
        == parse_arm(arm.canonical()).canonical()
    )
    assert parse_methods("mixup,original,mixup") == ["mixup", "original"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " , ",
        "dif-ii",
        "diff-ii@",
        "diff-ii@x",
        "diff-ii@split_ratio=",
        "mixup+cutmix",
        "mixup+diff-ii",
        "original@x=1",
        "diff-ii@y=2",
        "diff-ii@start.angle=1",
        "diff-ii@split_ratio.x=1",
        "diff-ii@naming.nothing=1",
    ],
)
def test_bad_texts_are_one_clear_sentence(text):
    if text == "diff-ii@":
        assert make_arm(text).text == "diff-ii"
        return
    with pytest.raises(GenaugError) as error:
        for arm in parse_methods(text):
            make_arm(arm, toy_backbone())
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


def test_tiny_settings_apply_to_the_embedded_backbone_only_and_the_text_wins():
    assert make_arm("diff-ii", toy_backbone()).augmenter.naming.steps == 35_000
    embedded = make_arm("diff-ii").augmenter
    assert embedded.naming == tiny_settings("diff-ii")["naming"]
    assert embedded.guidance_scale == tiny_settings("diff-ii")["guidance_scale"]
    assert make_arm("diff-ii@naming.steps=7;guidance_scale=9").augmenter.naming.steps == 7
    assert make_arm("diff-ii@guidance_scale=9").augmenter.guidance_scale == 9


def test_use_and_replace_belong_to_the_arm():
    assert make_arm("diff-ii", replace=0.2).use == SwapClass(0.2)
    assert make_arm("diff-ii@replace=0.7;use=append", replace=0.2).use == Append(0.7)
    assert make_arm("diff-ii+cutmix").mixer.name == "cutmix"
    assert make_arm("mixup").use is None
