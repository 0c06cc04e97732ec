"""Graph modules that are pickled and copied come back equal, or are refused with what to do."""

import copy
import io
import pickle
import subprocess
import sys

import pytest
import torch
from torch import fx, nn
from torch.nn.utils import parametrizations

from embedl_deploy import transform
from embedl_deploy.errors import InputError
from embedl_deploy.quantize import freeze, insert_qdq, quantization_recipe, quantize
from support.nets import net, random_input

X = random_input(2, 4, 8, 8)


def through_a_file(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = {"torch.save": through_a_file, "pickle": lambda m: pickle.loads(pickle.dumps(m)), "copy": copy.deepcopy}


@pytest.fixture(scope="module")
def result():
    torch.manual_seed(0)
    blocks = (nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 5))
    return transform(nn.Sequential(*blocks).eval(), X, backend="tensorrt")


@pytest.fixture(scope="module", params=["transformed", "inserted", "quantized", "frozen"])
def model(request, result):
    if request.param == "transformed":
        return result.model
    if request.param == "inserted":
        return insert_qdq(result.model)
    quantized = quantize(result, [X], progress=False)
    return freeze(quantized) if request.param == "frozen" else quantized


def nodes(model):
    return [(node.format_node(), sorted(node.meta)) for node in model.graph.nodes]


@pytest.mark.parametrize("way", WAYS)
def test_all_of_it_comes_back(model, way, request):
    again = WAYS[way](WAYS[way](model))
    assert nodes(again) == nodes(model) and again.meta == model.meta and again.code == model.code
    assert again.training == model.training
    assert way == "copy" or type(again).__name__ == type(model).__name__  # fx gives copies the name of its own class
    if "inserted" not in request.node.callspec.id:
        assert torch.equal(again(X), model(X))
    assert again.state_dict().keys() == model.state_dict().keys()


def test_it_can_be_quantized_like_the_one_that_was_saved(result):
    again = quantize(through_a_file(result.model), [X], progress=False)
    saved = quantize(result.model, [X], progress=False)
    assert torch.equal(again(X), saved(X)) and quantization_recipe(again) == quantization_recipe(saved)


def test_a_process_that_has_not_seen_the_model(result, tmp_path):
    quantized = quantize(result, [X], progress=False)
    torch.save((quantized, X), tmp_path / "model.pt")
    code = (
        "import sys, torch; model, x = torch.load(sys.argv[1], weights_only=False); torch.save(model(x), sys.argv[2])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "model.pt", tmp_path / "y.pt"], check=False, stderr=subprocess.PIPE
    )
    assert done.returncode == 0, done.stderr.decode()
    assert torch.equal(torch.load(tmp_path / "y.pt"), quantized(X))


def test_shared_parts_stay_shared():
    linear = nn.Linear(8, 8)
    model = nn.Sequential(linear, nn.Tanh(), linear, nn.Tanh(), nn.Linear(8, 8))
    model[4].weight = linear.weight
    again = through_a_file(transform(model.eval(), backend="tensorrt").model)
    assert len(list(again.parameters())) == len(list(model.parameters())) == 3


def test_nested_arguments_and_operators_of_aten():
    graph = fx.Graph()
    x = graph.placeholder("x")
    parts = graph.call_function(torch.ops.aten.split.Tensor, (x, 2))
    first = graph.call_function(getattr, (x, "shape"))
    picked = graph.call_function(torch.ops.aten.cat, ([graph.call_function(lambda_free_getitem, (parts, 0)), x],))
    graph.output({"y": (picked, [first])})
    plain = fx.GraphModule(nn.Module(), graph)
    again = through_a_file(transform(plain, patterns=[]).model)
    assert torch.equal(again(X)["y"][0], plain(X)["y"][0]) and again(X)["y"][1] == [X.shape]


def lambda_free_getitem(parts, index):
    return parts[index]


@pytest.mark.parametrize("how", ["bias_correction", "freeze_weights", "before"])
def test_what_weight_norm_leaves_behind_is_not_stored(how):
    torch.manual_seed(0)
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 4)).eval()
    if how == "before":
        nn.utils.parametrize.remove_parametrizations(model[0], "weight")
    x, settings = random_input(2, 4), {} if how == "before" else {how: True}
    saved = quantize(transform(model, x, backend="tensorrt"), [x], progress=False, **settings)
    torch.testing.assert_close(through_a_file(saved)(x), saved(x), rtol=0, atol=0)


class TestRefused:
    def test_parametrized_parts(self):
        model = nn.Sequential(parametrizations.weight_norm(nn.Linear(8, 8)), nn.ReLU()).eval()
        with pytest.raises(InputError, match=r"'0.linear' is parametrized.*remove_parametrizations"):
            through_a_file(transform(model, backend="tensorrt").model)

    def test_hooks_without_a_name(self, result):
        model = copy.deepcopy(result.model)
        next(model.children()).register_forward_hook(lambda *_: None)
        with pytest.raises(InputError, match=r"'_forward_hooks' of '0' holds .*<lambda>.*remove the hook"):
            through_a_file(model)
        assert len(next(copy.deepcopy(model).children())._forward_hooks) == 1

    def test_functions_without_a_name(self):
        graph = fx.Graph()
        graph.output(graph.call_function(lambda x: x, (graph.placeholder("x"),)))
        model = transform(fx.GraphModule(nn.Module(), graph), patterns=[]).model
        with pytest.raises(InputError, match=r"Define functions at the top of a module.*quantization_recipe"):
            through_a_file(model)

    def test_the_guards_of_an_exported_graph(self):
        model = transform(net(lambda m, x: m.conv(x), conv=nn.Conv2d(4, 4, 1)), X, patterns=[], trace="export").model
        with pytest.raises(InputError, match=r"'_guards_fn.guards' is a function .*trace='symbolic'"):
            through_a_file(model)
