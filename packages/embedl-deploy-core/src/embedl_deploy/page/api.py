"""From reports to a page."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embedl_deploy.files import atomic_write
from embedl_deploy.page.document import document
from embedl_deploy.page.parts import Report, read_part
from embedl_deploy.page.run import Run
from embedl_deploy.validation.checked import checked

Given = Mapping[str, Any] | Report | None


@checked
def render_page(
    *,
    transformation: Given = None,
    quantization: Given = None,
    sensitivity: Given = None,
    engine: Given = None,
    comparison: Given = None,
    check: Given = None,
    float32: Given = None,
    frontier: Given = None,
    commands: Sequence[str] = (),
    title: str = "embedl-deploy",
) -> str:
    """One page about a run, as HTML that needs nothing else: no network, no other file.

    Every part may be left out, and is a report or the plain values of one: what its ``to_dict`` gives, and what the
    command line prints with ``--json``. Sections are there for what was given; modules are joined by their paths.

    Args:
        transformation: What ``transform`` returned, or its report.
        quantization: What ``quantization_report`` returned.
        sensitivity: What ``sensitivity`` returned.
        engine: The engine's report, of ``compile``.
        comparison: What ``compare`` returned; its second engine should be that of ``engine``.
        check: What ``check`` returned.
        float32: What ``float32_report`` returned.
        frontier: What a search has tried: what ``tune`` returned, or a :class:`Frontier`.
        commands: Those that make the run again, one to a line.
        title: Of the page.

    Raises:
        InputError: A part is a report of another kind, or something is missing in it.
    """
    given = {
        "transformation": transformation,
        "quantization": quantization,
        "sensitivity": sensitivity,
        "engine": engine,
        "comparison": comparison,
        "check": check,
        "float32": float32,
        "frontier": frontier,
    }
    parts = {name: read_part(name, part) for name, part in given.items() if part is not None}
    return document(Run(**parts, commands=tuple(commands)), title)


@checked
def write_page(
    path: str | os.PathLike[str],
    *,
    transformation: Given = None,
    quantization: Given = None,
    sensitivity: Given = None,
    engine: Given = None,
    comparison: Given = None,
    check: Given = None,
    float32: Given = None,
    frontier: Given = None,
    commands: Sequence[str] = (),
    title: str = "embedl-deploy",
) -> Path:
    """Write a page about a run, whole or not at all: :func:`render_page` says what the arguments are.

    Args:
        path: Where; by custom it ends in ``.html``. Missing folders are made.
        transformation: As for :func:`render_page`.
        quantization: As for :func:`render_page`.
        sensitivity: As for :func:`render_page`.
        engine: As for :func:`render_page`.
        comparison: As for :func:`render_page`.
        check: As for :func:`render_page`.
        float32: As for :func:`render_page`.
        frontier: As for :func:`render_page`.
        commands: As for :func:`render_page`.
        title: As for :func:`render_page`.

    Returns:
        The path.

    Raises:
        InputError: A part is a report of another kind, or something is missing in it.
        FileWriteError: The file cannot be written.
    """
    text = render_page(
        transformation=transformation,
        quantization=quantization,
        sensitivity=sensitivity,
        engine=engine,
        comparison=comparison,
        check=check,
        float32=float32,
        frontier=frontier,
        commands=commands,
        title=title,
    )
    with atomic_write(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)
