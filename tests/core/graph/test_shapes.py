"""Shapes are found without running the model."""

import pytest
import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp, _extract_tensor_metadata

from embedl_deploy import transform
from embedl_deploy.errors import InputError
from embedl_deploy.graph import dtype_of, propagate_shapes, shape_of
from embedl_deploy.graph.inputs import bind_inputs, describe_inputs
from embedl_deploy.modules import symbolic_trace
from support.nets import net, random_input


def shapes(graph_module):
    return {node.name: shape_of(node) for node in graph_module.graph.nodes}


def small(function, **modules):
    return symbolic_trace(net(function, **modules))


class TestFound:
    def test_shape_and_dtype_of_every_tensor(self):
        graph = small(lambda self, x: (self.c(x).flatten(1).argmax(1), x.half()), c=nn.Conv2d(3, 4, 3, stride=2))
        assert propagate_shapes(graph, (random_input(2, 3, 9, 7),), {}) is None
        assert shapes(graph) == {
            "x": (2, 3, 9, 7), "c": (2, 4, 4, 3), "flatten": (2, 48), "argmax": (2,), "half": (2, 3, 9, 7),
            "output": None,
        }  # fmt: skip
        types = {node.name: dtype_of(node) for node in graph.graph.nodes}
        assert types["c"] == torch.float32
        assert types["argmax"] == torch.int64
        assert types["half"] == torch.float16

    def test_the_same_as_running(self):
        graph = small(
            lambda self, x: torch.cat([self.c(x), self.p(x)], 1).mean((2, 3)),
            c=nn.Conv2d(3, 4, 2),
            p=nn.MaxPool2d(2, 1),
        )
        x = random_input(1, 3, 5, 6)
        propagate_shapes(graph, (x,), {})
        found = shapes(graph)
        ShapeProp(graph).propagate(x)
        assert shapes(graph) == found
        assert found["mean"] == (1, 7)

    def test_nothing_without_propagation(self):
        graph = small(lambda self, x: x + 1)
        assert set(shapes(graph).values()) == {None}
        assert {dtype_of(node) for node in graph.graph.nodes} == {None}

    def test_what_torch_export_leaves_counts(self):
        module = torch.export.export(net(lambda self, x: x.flatten(1)), (random_input(2, 3, 4),)).module()
        node = next(node for node in module.graph.nodes if node.op == "call_function" and "flatten" in node.name)
        node.meta.pop("tensor_meta", None)
        assert shape_of(node) == (2, 12)
        assert dtype_of(node) == torch.float32

    def test_lists_and_numbers_have_none(self):
        graph = small(lambda self, x: x.split(1)[0] * x.size(0))
        propagate_shapes(graph, (random_input(2, 3),), {})
        assert shapes(graph)["split"] is None
        assert shapes(graph)["size"] is None
        assert shapes(graph)["mul"] == (1, 3)

    def test_older_shapes_of_what_is_no_tensor_any_more_are_removed(self):
        graph = small(lambda self, x: x.split(1)[0])
        propagate_shapes(graph, (random_input(2, 3),), {})
        split, item = (node for node in graph.graph.nodes if node.op.startswith("call"))
        split.meta["tensor_meta"] = item.meta["tensor_meta"]
        propagate_shapes(graph, (random_input(2, 3),), {})
        assert shape_of(split) is None


class TestDataDependent:
    def test_a_note_names_the_node_and_the_rest_is_known(self, caplog):
        graph = small(lambda self, x: torch.nonzero(x * 2).sum())
        note = propagate_shapes(graph, (random_input(2, 3),), {})
        assert note == "shapes are unknown from 'nonzero' on: DynamicOutputShapeException"
        assert note in caplog.text
        assert shapes(graph) == {"x": (2, 3), "mul": (2, 3), "nonzero": None, "sum_1": None, "output": None}

    def test_it_is_in_the_report(self):
        x = random_input(2, 3)
        result = transform(net(lambda self, x: torch.nonzero(x)), x, patterns=[])
        assert "shapes are unknown from 'nonzero' on: DynamicOutputShapeException" in result.report["notes"]


class OnlyReal(nn.Module):
    """Takes real tensors only, as some of torch's own fast paths do."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        if isinstance(x, torch._subclasses.FakeTensor):
            raise RuntimeError("no sizes")
        return self.norm(x) + torch.rand(1)


class TestOperatorsWithoutFakeTensors:
    def test_leave_the_rest_unknown(self, caplog):
        graph = symbolic_trace(net(lambda self, x: self.own(x.abs()), own=OnlyReal()), leaf_modules=[OnlyReal])
        before = {name: value.clone() for name, value in graph.state_dict().items()}
        random = torch.random.get_rng_state()
        note = propagate_shapes(graph, (random_input(4, 3),), {})
        assert note == "shapes are unknown from 'own' on: RuntimeError"
        assert note in caplog.messages
        assert shapes(graph)["abs_1"] == (4, 3)
        assert shapes(graph)["own"] is None
        assert all(torch.equal(value, before[name]) for name, value in graph.state_dict().items())
        assert torch.equal(random, torch.random.get_rng_state())

    def test_do_not_hide_that_inputs_do_not_fit(self):
        graph = symbolic_trace(net(lambda self, x: self.own(x.abs()), own=OnlyReal()), leaf_modules=[OnlyReal])
        with pytest.raises(InputError, match=r"does not accept the inputs at 'own' \(OnlyReal\)"):
            propagate_shapes(graph, (random_input(4, 2),), {})


class TestNoTraces:
    @pytest.mark.parametrize("training", [False, True])
    def test_of_random_numbers_running_statistics_or_inputs(self, training):
        model = net(
            lambda self, x: self.bn(self.drop(x.mul_(2))) + torch.rand_like(x), bn=nn.BatchNorm2d(3), drop=nn.Dropout()
        ).train(training)
        graph = symbolic_trace(model)
        before = {name: tensor.clone() for name, tensor in graph.state_dict().items()}
        owners = dict(graph.named_buffers())
        rng, x = torch.get_rng_state(), random_input(2, 3, 4, 4)
        kept = x.clone()
        assert propagate_shapes(graph, (x,), {}) is None
        assert torch.equal(torch.get_rng_state(), rng)
        assert torch.equal(x, kept)
        assert all(torch.equal(tensor, before[name]) for name, tensor in graph.state_dict().items())
        assert all(tensor is owners[name] for name, tensor in graph.named_buffers())
        assert all(not isinstance(t, torch._subclasses.FakeTensor) for t in graph.state_dict().values())

    def test_buffers_are_put_back_after_an_error(self):
        graph = small(lambda self, x: self.bn(x), bn=nn.BatchNorm2d(3))
        before = dict(graph.named_buffers())
        with pytest.raises(InputError):
            propagate_shapes(graph, (random_input(2, 5, 4, 4),), {})
        assert all(tensor is before[name] for name, tensor in graph.named_buffers())

    def test_batches_are_not_counted_through_transform(self):
        model = net(lambda self, x: self.bn(x), bn=nn.BatchNorm2d(3)).train()
        result = transform(model, random_input(2, 3, 4, 4), patterns=[])
        assert int(result.model.get_buffer("bn.num_batches_tracked")) == 0

    def test_of_a_large_model_without_its_memory(self):
        graph = small(lambda self, x: x @ x.T)
        assert propagate_shapes(graph, (torch.empty(1, 1).expand(1_000_000, 1_000_000),), {}) is None
        assert shapes(graph)["matmul"] == (1_000_000, 1_000_000)


class TestInputs:
    def test_that_do_not_fit_name_the_node(self):
        graph = small(lambda self, x: self.c(x + 1), c=nn.Conv2d(3, 4, 1))
        with pytest.raises(InputError, match=r"at 'c' \(Conv2d\).*Given: \(float32\[2, 5, 4, 4\] on cpu\)"):
            propagate_shapes(graph, (random_input(2, 5, 4, 4),), {})

    def test_are_bound_by_name_and_default(self):
        class Defaults(nn.Module):
            def forward(self, x, scale=2.0, shift=None):
                return x * scale

        graph = symbolic_trace(Defaults())
        x = torch.ones(1)
        assert bind_inputs(graph, (x,), {}) == [x, 2.0, None]
        assert bind_inputs(graph, (), {"shift": 3, "x": x}) == [x, 2.0, 3]
        with pytest.raises(InputError, match="missing: x"):
            bind_inputs(graph, (), {"scale": 3})
        with pytest.raises(InputError, match=r"given twice: x\. Give x once"):
            bind_inputs(graph, (x,), {"x": x})
        with pytest.raises(
            InputError,
            match=r"takes the inputs \(x, scale, shift\).*1 too many. Omit everything after the first 3",
        ):
            bind_inputs(graph, (x, 1, 2, 3), {})

    def test_of_an_exported_graph_are_bound_by_place_and_by_name(self):
        class Two(nn.Module):
            def forward(self, a, b):
                return a - b

        a, b = torch.ones(1), torch.zeros(1)
        for by_place, by_name in (((a, b), {}), ((a,), {"b": b}), ((), {"a": a, "b": b})):
            graph = torch.export.export(Two(), by_place, by_name).module()
            for args, kwargs in (((a, b), {}), ((a,), {"b": b}), ((), {"b": b, "a": a})):
                found = bind_inputs(graph, args, kwargs)
                assert found[0] is a
                assert found[1] is b
            for args, kwargs in (((a,), {}), ((a,), {"c": b})):
                with pytest.raises(InputError, match="inputs of another structure"):
                    bind_inputs(graph, args, kwargs)
            with pytest.raises(InputError, match=r"\(float32\[1\] .* have b twice\. Give it once"):
                bind_inputs(graph, (a, b), {"b": b})

    def test_are_described(self):
        assert describe_inputs((torch.zeros(2, 3, dtype=torch.int8), 4), {"mask": None}) == (
            "(int8[2, 3] on cpu, 4, mask=None)"
        )


def test_a_graph_of_ones_own_is_propagated_through():
    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.output(graph.call_method("unsqueeze", (x, 0)))
    module = fx.GraphModule(nn.Module(), graph)
    propagate_shapes(module, (torch.zeros(3),), {})
    assert shapes(module)["unsqueeze"] == (1, 3)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_what_a_hook_keeps_is_not_left_behind():
    with torch.no_grad():
        graph = small(lambda self, x: self.c(x), c=nn.utils.weight_norm(nn.Conv2d(3, 4, 3)))
        kept = graph.c.weight
        propagate_shapes(graph, (random_input(1, 3, 8, 8),), {})
    assert graph.c.weight is kept


def test_operators_that_are_fake_in_bfloat16_alone():
    """torch's product of groups of rows: float32 on CPUs, and to fake tensors bfloat16."""
    graph = small(
        lambda self, x, ends: torch._grouped_mm(x, self.weights, ends).relu(),
        weights=nn.Parameter(torch.ones(2, 16, 8)),
    )
    ends = torch.tensor([3, 6], dtype=torch.int32)
    assert propagate_shapes(graph, (random_input(6, 16), ends), {}) is None
    assert shapes(graph)["relu"] == (6, 8)
    assert {dtype_of(node) for node in graph.graph.nodes if node.name in ("_grouped_mm", "relu")} == {torch.float32}


def test_a_shape_with_an_open_size_is_not_known():
    """Notes of torch.export in graphs inside a graph, in which nothing is propagated."""
    batch = torch.export.Dim("batch")
    program = torch.export.export(nn.ReLU(), (torch.ones(3, 4),), dynamic_shapes=({0: batch},), strict=False)
    (relu,) = program.graph.find_nodes(op="call_function", target=torch.ops.aten.relu.default)
    relu.meta["tensor_meta"] = _extract_tensor_metadata(relu.meta["val"])
    assert shape_of(relu) is None
    del relu.meta["tensor_meta"]
    assert shape_of(relu) is None
