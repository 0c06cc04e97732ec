"""Plans as JSON: what is read back, and every text that is refused."""

import json

import pytest
import torch
from torch import nn

from embedl_deploy import apply_transformation_plan, get_transformation_plan, load_transformation_plan
from embedl_deploy.backend import use_backend
from embedl_deploy.errors import PlanError
from embedl_deploy.tensorrt.modules import FusedConvBN, FusedLinear
from embedl_deploy.tensorrt.patterns import ConvBNPattern, FlattenLinearToConv1x1Pattern, LinearPattern
from support.nets import random_input
from support.small_patterns import PATTERNS, ConvBNActPattern, ConvPattern


def make_net(*, channels=4, kernel=3, slope=0.1, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, channels, kernel), nn.LeakyReLU(slope), nn.Conv2d(channels, 2, 1)).eval()


@pytest.fixture
def plan():
    return get_transformation_plan(make_net(), patterns=PATTERNS)


@pytest.fixture
def data(plan):
    return json.loads(plan.to_json())


def load(data, model=None, **settings):
    text = data if isinstance(data, str) else json.dumps(data)
    return load_transformation_plan(text, model or make_net(), **{"patterns": PATTERNS, **settings})


class TestRoundTrip:
    def test_text_is_the_same(self, plan):
        assert load(plan.to_json()).to_json() == plan.to_json()

    def test_text_is_the_same_after_a_flag_was_set_by_hand(self, plan):
        for match in plan:
            match.apply = not match.apply
        assert load(plan.to_json()).to_json() == plan.to_json()

    def test_holds_what_a_reviewer_wants_to_see(self, data):
        assert data["model"]["class"] == "Sequential"
        assert data["patterns"] == ["ConvAddActPattern", "ConvBNActPattern", "ConvPattern"]
        assert [(m["node"], m["pattern"], m["apply"], m["reason"]) for m in data["matches"]] == [
            ("_1", "ConvBNActPattern", True, ""),
            ("_0", "ConvPattern", False, "overlaps ConvBNActPattern at _1"),
            ("_2", "ConvPattern", True, ""),
        ]

    def test_other_weights_take_the_plan(self, plan):
        other = make_net(seed=5)
        loaded = load(plan.to_json(), other)
        assert loaded.fingerprint == plan.fingerprint
        assert apply_transformation_plan(loaded).verify(random_input(1, 3, 5, 5)).max_abs == 0

    def test_an_edited_flag_takes_effect(self, data):
        data["matches"][2]["apply"] = False
        loaded = load(data)
        assert loaded.get("_2", "ConvPattern").reason == "switched off in the plan"
        result = apply_transformation_plan(loaded)
        assert [entry["node"] for entry in result.report["applied"]] == ["_1"]
        assert type(result.model.get_submodule("2")) is nn.Conv2d
        assert result.verify(random_input(1, 3, 5, 5)).max_abs == 0

    def test_a_flag_switched_on_takes_effect(self, data):
        data["matches"][0]["apply"], data["matches"][1]["apply"] = False, True
        result = apply_transformation_plan(load(data))
        assert [(e["node"], e["pattern"]) for e in result.report["applied"]] == [
            ("_0", "ConvPattern"),
            ("_2", "ConvPattern"),
        ]
        assert result.verify(random_input(1, 3, 5, 5)).max_abs == 0


class TestConversions:
    PATTERNS = [FlattenLinearToConv1x1Pattern(), ConvBNPattern(), LinearPattern()]

    @pytest.fixture
    def classifier(self):
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(4, 2)).eval()

    def test_one_switched_off_leaves_its_nodes_to_fusions(self, classifier):
        x = random_input(2, 4, 3, 3)
        plan = get_transformation_plan(classifier, patterns=self.PATTERNS)
        data = json.loads(plan.to_json())
        (conversion,) = [match for match in data["matches"] if match["stage"] == "conversion"]
        converted = apply_transformation_plan(plan)
        assert any(isinstance(m, FusedConvBN) for m in converted.model.modules())
        conversion["apply"] = False
        result = apply_transformation_plan(load(data, classifier, patterns=self.PATTERNS))
        assert {e["pattern"] for e in result.report["applied"]} == {"LinearPattern"}
        assert any(isinstance(m, FusedLinear) for m in result.model.modules())
        assert not any(isinstance(m, (FusedConvBN, nn.Conv2d)) for m in result.model.modules())
        assert result.verify(x).max_abs == 0
        assert converted.verify(x).max_rel < 1e-6


class TestBackend:
    def test_the_one_that_the_plan_names_is_used(self):
        plan = get_transformation_plan(make_net(), backend="tensorrt")
        assert json.loads(plan.to_json())["backend"] == "tensorrt"
        with use_backend("sensai"):  # the plan's own goes before the one in use
            loaded = load(plan.to_json(), patterns=None)
        assert loaded.backend.name == "tensorrt"
        assert loaded.to_json() == plan.to_json()

    def test_none_named_and_no_patterns_given(self, plan):
        with pytest.raises(PlanError, match=r"made with a list of patterns.*patterns="):
            load(plan.to_json(), patterns=None)

    def test_another_backend(self):
        text = get_transformation_plan(make_net(), backend="tensorrt").to_json()
        with pytest.raises(PlanError, match="The plan was made with the patterns"):
            load(text, patterns=None, backend="sensai")


class TestRefused:
    @pytest.mark.parametrize("text", ["", "{", "plan"])
    def test_no_json(self, text):
        with pytest.raises(PlanError, match=r"not valid JSON.*plan\.to_json"):
            load_transformation_plan(text, make_net(), patterns=PATTERNS)

    @pytest.mark.parametrize("data", ["[]", "3", "null", "{}", '{"format": "other/plan"}'])
    def test_no_plan(self, data):
        with pytest.raises(PlanError, match="The JSON is not a plan"):
            load(data)

    @pytest.mark.parametrize("version", [0, 2, "1", None])
    def test_another_version(self, data, version):
        data["version"] = version
        with pytest.raises(PlanError, match=f"version {version!r}; this release reads version 1"):
            load(data)

    @pytest.mark.parametrize(
        "matches",
        [
            None,
            {},
            "x",
            [3],
            [{}],
            [{"node": "_1", "pattern": "ConvPattern", "nodes": ["_1"]}],
            [{"node": "_1", "pattern": "ConvPattern", "nodes": ["_1"], "apply": 1}],
            [{"node": "_1", "pattern": "ConvPattern", "apply": True}],
        ],
    )
    def test_malformed_matches(self, data, matches):
        data["matches"] = matches
        with pytest.raises(PlanError, match='"matches" must be a list of objects'):
            load(data)

    @pytest.mark.parametrize("model", ["Net", ["Net"], 3])
    def test_malformed_model(self, data, model):
        data["model"] = model
        with pytest.raises(PlanError):
            load(data)

    @pytest.mark.parametrize("place", [{"node": ["_1"]}, {"pattern": {}}, {"nodes": 3}])
    def test_match_with_values_of_the_wrong_type(self, data, place):
        data["matches"][0].update(place)
        with pytest.raises(PlanError):
            load(data)

    def test_another_models(self, data):
        with pytest.raises(PlanError, match=r"made from another model: a Sequential with fingerprint \w{12}…"):
            load(data, make_net(channels=5))

    def test_other_patterns(self, data):
        for patterns in (PATTERNS[:2], PATTERNS[::-1], [ConvBNActPattern(), ConvPattern()]):
            with pytest.raises(
                PlanError, match=r"made with the patterns \['ConvAddActPattern'.*but the patterns are now"
            ):
                load(data, patterns=patterns)

    def test_other_nodes(self, data):
        data["matches"][2]["nodes"] = ["_1", "_2"]
        with pytest.raises(
            PlanError, match=r"'ConvPattern' at '_2' covers \['_1', '_2'\], but here it covers \['_2'\]"
        ):
            load(data)

    def test_matches_that_are_not_there(self, data):
        data["matches"][2]["node"] = "elsewhere"
        with pytest.raises(PlanError, match="no match of 'ConvPattern' at 'elsewhere'"):
            load(data)


class TestFingerprint:
    def of(self, model, *args):
        return get_transformation_plan(model, args or None, patterns=[]).fingerprint

    def test_equal_for_other_weights(self):
        assert self.of(make_net(seed=1)) == self.of(make_net(seed=2))

    def test_equal_with_and_without_example_inputs(self):
        assert self.of(make_net(), random_input(1, 3, 5, 5)) == self.of(make_net())

    @pytest.mark.parametrize("change", [{"channels": 5}, {"kernel": 1}, {"slope": 0.2}])
    def test_differs_for_another_architecture_or_setting(self, change):
        assert self.of(make_net(**change)) != self.of(make_net())

    def test_differs_for_other_arguments_of_a_function(self):
        def model(dimension):
            class Net(nn.Module):
                def forward(self, x):
                    return x.flatten(dimension)

            return Net()

        assert self.of(model(1)) != self.of(model(2))
        assert self.of(model(1)) == self.of(model(1))
