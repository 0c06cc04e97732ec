"""A graph module as it was."""

import pytest
import torch
from torch import nn

from embedl_deploy.graph.checkpoint import Checkpoint
from embedl_deploy.modules import symbolic_trace
from support.nets import net, random_input

X = random_input(2, 4)


@pytest.fixture
def graph_module():
    shared = nn.Linear(4, 4)
    model = net(
        lambda self, x: self.body(self.body(x)) + self.tied(x) + self.offset * self.constant,
        body=nn.Sequential(shared, nn.ReLU(), nn.Dropout()),
        tied=nn.Linear(4, 4),
        offset=nn.Parameter(torch.ones(4)),
    )
    model.tied.weight = shared.weight
    model.constant = torch.full((4,), 3.0)  # neither parameter nor buffer
    traced = symbolic_trace(model)
    traced.get_submodule("body.1").train()  # a flag of its own
    traced.graph.find_nodes(op="placeholder")[0].meta["note"] = "kept"
    return traced


def vandalize(graph_module):
    """Every edit that a rewrite may make."""
    graph = graph_module.graph
    first = next(node for node in graph.nodes if node.op == "call_module")
    with graph.inserting_after(first):
        extra = graph.call_function(torch.neg, (first,))
    first.replace_all_uses_with(extra)
    extra.replace_input_with(extra, first)
    graph_module.add_submodule("debris", nn.Linear(1, 1))
    graph_module.get_submodule("body")._modules["0"] = nn.Linear(4, 4)
    del graph_module.tied
    graph_module.register_buffer("more", torch.ones(1))
    graph_module.register_parameter("offset", None)
    for module in graph_module.modules():
        module.training = not module.training
    graph_module.recompile()


def facts(graph_module):
    return (
        [(n.name, n.op, str(n.target), str(n.args), n.meta.get("note")) for n in graph_module.graph.nodes],
        [(path, id(module), module.training) for path, module in graph_module.named_modules() if path],
        [(path, id(tensor)) for path, tensor in graph_module.named_parameters(remove_duplicate=False)],
        [(path, id(tensor)) for path, tensor in graph_module.named_buffers(remove_duplicate=False)],
        graph_module.training,
    )


def test_restore_undoes_everything(graph_module):
    before, wanted, nodes = facts(graph_module), graph_module(X), list(graph_module.graph.nodes)
    checkpoint = Checkpoint(graph_module)
    for _ in range(2):
        vandalize(graph_module)
        assert facts(graph_module) != before
        moved = checkpoint.restore()
        assert facts(graph_module) == before
        assert torch.equal(graph_module(X), wanted)
        graph_module.graph.lint()
        assert [moved[node].name for node in nodes] == [node.name for node in graph_module.graph.nodes]
        assert all(moved[node].graph is graph_module.graph for node in nodes)


def test_build_gives_another_graph_module_with_the_modules_of_then(graph_module):
    wanted, modules = graph_module(X), dict(graph_module.named_modules())
    checkpoint = Checkpoint(graph_module)
    vandalize(graph_module)
    built = checkpoint.build()
    for module in modules.values():
        module.eval()
    assert torch.equal(built(X), wanted)
    assert type(built).__name__ == type(graph_module).__name__
    assert built.get_submodule("body.0") is modules["body.0"]
    assert built.get_submodule("tied").weight is built.get_submodule("body.0").weight
    assert not built.training
    assert not built.get_submodule("body").training
    for node in built.graph.nodes:
        assert node.graph is built.graph
    built.add_submodule("mine", nn.ReLU())
    assert not hasattr(graph_module, "mine")


def test_no_tensor_is_copied(graph_module):
    known = {t.data_ptr() for t in (*graph_module.parameters(), *graph_module.buffers(), graph_module.constant)}
    built = Checkpoint(graph_module).build()
    assert {t.data_ptr() for t in (*built.parameters(), *built.buffers(), built.constant)} == known


def test_an_exported_module_too():
    model = net(lambda self, x: self.fc(x), fc=nn.Linear(4, 4))
    exported = torch.export.export(model, (X,)).module()
    checkpoint = Checkpoint(exported)
    assert torch.equal(checkpoint.build()(X), model(X))
    checkpoint.restore()
    assert torch.equal(exported(X), model(X))
