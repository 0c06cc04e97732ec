"""The calls that are read as modules, from the table of forms."""

from embedl_deploy.graph.functional import FAMILIES


def form_reference() -> str:
    """A table for each family: the module class, and the operations that are read as it."""
    parts = []
    for family, forms in FAMILIES.items():
        by_class: dict[str, list[str]] = {}
        for form in forms:
            by_class.setdefault(_class_name(form.module_class, family), []).extend(map(str, form.operations))
        rows = [f"| {name} | {', '.join(f'`{each}`' for each in names)} |" for name, names in by_class.items()]
        parts.append(
            "\n".join([f"### {family[0].upper()}{family[1:]}", "", "| read as | operations |", "|---|---|", *rows])
        )
    return "\n\n".join(parts)


def _class_name(cls: type, family: str) -> str:
    """The class, or in words what its subclasses have in common."""
    name = cls.__name__
    if name == "Module" and family == "activations":
        return "`ReLU` or `ReLU6`, by the bounds"
    if name == "Module":
        return "`ZeroPad…d`, `ConstantPad…d`, `ReflectionPad…d`, `ReplicationPad…d`, `CircularPad…d`"
    if name.startswith("_"):
        return f"`{name.strip('_').removesuffix('Nd')}…d`, by the shape of the input"
    return f"`{name}`"
