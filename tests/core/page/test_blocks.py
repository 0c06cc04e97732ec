"""The graph as blocks in blocks."""

from embedl_deploy.page.blocks import Block, blocks_of
from embedl_deploy.page.model_reports import GraphNode


def module(path):
    return GraphNode(path.replace(".", "_"), "call_module", path, "Fused", ())


def function(name, within=""):
    return GraphNode(name, "call_function", within, "add", ())


def tree(block):
    """A block as nested lists, with its name first."""
    return [block.name, *(tree(each) if isinstance(each, Block) else each.node for each in block.members)]


def test_neighbours_are_one_block_and_a_block_around_one_block_is_that_block():
    nodes = [module("stem"), *(module(f"body.layers.{at}.{part}") for at in (0, 1) for part in ("a", "b"))]
    expected = ["", "stem", ["body.layers", ["body.layers.0", "body_layers_0_a", "body_layers_0_b"]]]
    expected[2].append(["body.layers.1", "body_layers_1_a", "body_layers_1_b"])
    assert tree(blocks_of(nodes)) == expected


def test_the_order_of_the_graph_is_kept():
    nodes = [module("a.x"), module("a.y"), module("b"), module("a.x"), module("a.z")]
    assert tree(blocks_of(nodes)) == ["", ["a", "a_x", "a_y"], "b", ["a", "a_x", "a_z"]]
    assert [node.module for node in blocks_of(nodes).nodes()] == ["a.x", "a.y", "b", "a.x", "a.z"]


def test_a_module_and_what_is_in_it_are_one_block():
    nodes = [module("conv"), module("conv.act"), function("add", "conv"), module("conv"), module("conv")]
    assert tree(blocks_of(nodes)) == ["", ["conv", "conv", "conv_act", "add", "conv", "conv"]]
    assert tree(blocks_of([module("conv"), module("conv")])) == ["", "conv", "conv"]


def test_many_functions_are_folded():
    nodes = [module("a.x"), *(function(f"f{at}", "a") for at in range(4)), module("a.y"), function("last")]
    whole = blocks_of(nodes)
    assert tree(whole) == ["", ["a", "a_x", ["functions", "f0", "f1", "f2", "f3"], "a_y"], "last"]
    (block, _) = whole.members
    assert block.is_open and not block.members[1].is_open


def test_blocks_are_opened_from_the_outside_until_there_is_too_much():
    nodes = [module(f"body.{block}.{part}") for block in range(4) for part in range(5)]
    assert [blocks_of(nodes, most=most).members[0].is_open for most in (2, 5, 25)] == [False, True, True]
    assert [blocks_of(nodes, most=most).members[0].members[0].is_open for most in (5, 25)] == [False, True]
