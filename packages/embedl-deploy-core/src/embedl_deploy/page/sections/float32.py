"""What stays in float32, because float16 does not hold it."""

from embedl_deploy.page.html import code, join, tag
from embedl_deploy.page.section import Section, Source, module_named
from embedl_deploy.page.table import Cell, Column, Line, table
from embedl_deploy.page.words import counted, number


def float32(source: Source) -> Section | None:
    """The section, if it was looked for."""
    found = source.run.float32
    if found is None:
        return None
    if not found.nodes:
        said = f"Everything fits into float16: {number(found.sqnr)} dB on the data."
        return Section("float32", "Float32", "What stays in float32", tag("p", said))
    before = "outputs that are not finite" if found.sqnr_before is None else f"{number(found.sqnr_before)} dB"
    said = (
        f"{counted(len(found.nodes), 'call')} that float16 does not hold. All in float16 would give {before}; with "
        f"these in float32 it is {number(found.sqnr)} dB."
    )
    lines = [
        Line([Cell(module_named(source, node.module) or code(node.node)), Cell(node.operator), Cell(node.reason)])
        for node in found.nodes
    ]
    columns = [Column("module"), Column("operator"), Column("why")]
    return Section(
        "float32", "Float32", "What stays in float32", join(tag("p", said), table(columns, lines, anchor="t-float32"))
    )
