"""Placing modules, training flags, and cleaning up."""

import pytest
import torch
from torch import nn

from embedl_deploy.graph.edit import add_module, deep_copy, erase, inherit_training, is_free, put_module, rebuild
from embedl_deploy.graph.functional import FrozenBatchNorm2d
from embedl_deploy.modules import symbolic_trace
from support.nets import net, random_input


@pytest.fixture
def graph_module():
    traced = symbolic_trace(
        net(
            lambda self, x: self.body(x) + self.offset,
            body=nn.Sequential(nn.Linear(4, 4), nn.ReLU()),
            offset=nn.Parameter(torch.ones(4)),
            unused=nn.Linear(9, 9),
        )
    )
    traced.add_submodule("late", nn.Linear(7, 7))
    return traced


class TestPlaces:
    def test_is_free(self, graph_module):
        assert is_free(graph_module, "new")
        assert is_free(graph_module, "new.deep.er")
        assert is_free(graph_module, "body.2")
        for taken in ("body", "body.0", "body.0.weight", "offset", "offset.below", "forward", "training"):
            assert not is_free(graph_module, taken), taken

    def test_add_module_takes_the_first_free_name(self, graph_module):
        first, second = nn.ReLU(), nn.ReLU()
        assert add_module(graph_module, "act.one", first) == "act.one"
        assert add_module(graph_module, "act.one", second) == "act.one_1"
        assert add_module(graph_module, "offset", nn.ReLU()) == "offset_1"
        assert graph_module.get_submodule("act.one") is first
        assert graph_module.get_submodule("act.one_1") is second

    def test_put_module_replaces(self, graph_module):
        module = nn.Tanh()
        put_module(graph_module, "body.1", module)
        assert graph_module.get_submodule("body.1") is module
        put_module(graph_module, "body", module)
        assert graph_module.get_submodule("body") is module


class TestTrainingFlags:
    @pytest.mark.parametrize("flags", [[False, False], [True, False], [True, True]])
    def test_new_modules_take_those_of_the_replaced(self, flags):
        old = [nn.ReLU().train(flag) for flag in flags]
        new = nn.Sequential(*old, nn.Sequential(nn.Dropout()))
        inherit_training(new, old, default=True)
        assert [m.training for m in old] == flags, "the replaced keep theirs"
        assert new.training is new[2].training is new[2][0].training is any(flags)

    @pytest.mark.parametrize("default", [False, True])
    def test_the_default_without_any(self, default):
        new = nn.Sequential(nn.ReLU()).train(not default)
        inherit_training(new, [], default)
        assert {m.training for m in new.modules()} == {default}

    def test_a_module_that_decides_for_itself_is_left(self):
        new = nn.Sequential(FrozenBatchNorm2d(2).eval())
        inherit_training(new, [nn.ReLU().train()], default=True)
        assert new.training
        assert not new[0].training


class TestCleaningUp:
    def test_rebuild_keeps_only_what_is_used(self, graph_module):
        graph_module.meta["note"] = "kept"
        graph_module.eval()
        rebuilt = rebuild(graph_module)
        assert [name for name, _ in rebuilt.named_modules()] == ["", "body", "body.0", "body.1"]
        assert rebuilt.get_submodule("body.0") is graph_module.get_submodule("body.0")
        assert rebuilt.offset is graph_module.offset
        assert rebuilt.meta["note"] == "kept"
        assert type(rebuilt).__name__ == type(graph_module).__name__
        x = random_input(2, 4)
        assert torch.equal(rebuilt(x), graph_module(x))

    @pytest.mark.parametrize("training", [False, True])
    def test_rebuild_keeps_training_flags(self, graph_module, training):
        graph_module.train(training)
        graph_module.get_submodule("body.0").train(not training)
        rebuilt = rebuild(graph_module)
        flags = {name: module.training for name, module in rebuilt.named_modules()}
        assert flags == {"": training, "body": training, "body.0": not training, "body.1": training}

    def test_erase_takes_constants_of_its_own_along(self, graph_module):
        graph = graph_module.graph
        add = next(node for node in graph.nodes if node.op == "call_function")
        body = add.args[0]
        add.replace_all_uses_with(body)
        erase(add)
        assert "get_attr" not in {node.op for node in graph.nodes}
        graph.lint()

    def test_erase_leaves_shared_constants(self):
        graph = symbolic_trace(net(lambda self, x: (x + self.p, x * self.p), p=nn.Parameter(torch.ones(1)))).graph
        add = next(node for node in graph.nodes if node.name == "add")
        add.replace_all_uses_with(add.args[0])
        erase(add)
        assert [node.name for node in graph.nodes] == ["x", "p", "mul", "output"]

    def test_deep_copy_of_a_graph_is_node_for_node(self, graph_module):
        copied = deep_copy(graph_module.graph)
        assert [n.name for n in copied.nodes] == [n.name for n in graph_module.graph.nodes]
        assert not set(copied.nodes) & set(graph_module.graph.nodes)

    @pytest.mark.filterwarnings("error")
    def test_deep_copy_of_an_exported_module_does_not_warn(self):
        model = net(lambda self, x: self.fc(x), fc=nn.Linear(4, 4))
        x = random_input(2, 4)
        assert torch.equal(deep_copy(torch.export.export(model, (x,)).module())(x), model(x))
