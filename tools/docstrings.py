"""The public names' docstrings: read from the source without importing it, and checked."""

from __future__ import annotations

import ast
import inspect
import pathlib
import textwrap
from collections.abc import Iterable, Iterator

import griffe

ROOT = pathlib.Path(__file__).resolve().parents[1]
PUBLIC_MODULES = ("sqz_keras", "sqz_keras.hub", "sqz_keras.codec", "sqz_keras.applications", "export.client.client")


class ComposedDocstrings(griffe.Extension):
    """Adds the docstrings that a module composes from strings that it names: `function.__doc__ = f"..."`."""

    def on_module_members(self, *, node: ast.AST, mod: griffe.Module, **kwargs) -> None:
        del kwargs
        strings = {}
        for statement in getattr(node, "body", []):
            target = statement.targets[0] if isinstance(statement, ast.Assign) else None
            if isinstance(target, ast.Name) and isinstance(statement.value, ast.Constant):
                strings[target.id] = statement.value.value
            elif isinstance(target, ast.Attribute) and target.attr == "__doc__":
                text = eval(compile(ast.Expression(statement.value), str(mod.filepath), "eval"), {}, strings)
                function = mod[target.value.id]
                function.docstring = griffe.Docstring(inspect.cleandoc(text), parent=function)


def load(packages: Iterable[str], root: pathlib.Path = ROOT) -> griffe.ModulesCollection:
    """Packages as their source describes them."""
    extensions = griffe.load_extensions(ComposedDocstrings)
    loader = griffe.GriffeLoader(search_paths=[root], extensions=extensions, docstring_parser="google")
    for package in packages:
        loader.load(package)
    loader.resolve_aliases(implicit=True, external=False)
    return loader.modules_collection


def problems(
    documented: Iterable[str], modules: Iterable[str] = PUBLIC_MODULES, root: pathlib.Path = ROOT
) -> Iterator[str]:
    """What is missing in a reference, one line each.

    Args:
        documented: The full names that the reference has.
        modules: The modules whose `__all__` the reference must have.
        root: Folder of the packages.

    Yields:
        The names that the reference lacks, and what the docstrings of the other names lack.
    """
    documented = sorted(documented)
    collection = load(sorted({name.partition(".")[0] for name in (*documented, *modules)}), root)
    targets = {_target(collection[name]).path for name in documented}
    for module in modules:
        for name in map(str, collection[module].exports or ()):
            target = _target(collection[module][name])
            if not target.is_module and target.path not in targets:
                yield f"{module}.{name}: not in the reference"
    for name in documented:
        target = _target(collection[name])
        yield from (f"{name}: {problem}" for problem in _of(target))
        methods = target.functions.values() if target.is_class else ()
        for method in methods:
            if method.is_public and not method.name.startswith("__"):
                yield from (f"{name}.{method.name}: {problem}" for problem in _of(method))


def _target(member: griffe.Object | griffe.Alias) -> griffe.Object:
    return member.final_target if member.is_alias else member


def _of(target: griffe.Object) -> Iterator[str]:
    """What the docstring of a function or class lacks. The first line is enough for a method without arguments."""
    if not target.docstring:
        yield "no docstring"
        return
    is_method = target.is_function and target.parent.is_class
    if is_method and (len(target.parameters) == 1 or target.docstring.value.startswith("As ")):
        return
    sections = {section.kind.value: section.value for section in target.docstring.parse("google", warnings=False)}
    is_dataclass = "dataclass" in target.labels
    function = target.members.get("__post_init__" if is_dataclass else "__init__") if target.is_class else target
    parameters = _fields(target) if is_dataclass else {item.name for item in function.parameters} if function else set()
    described = {part.name.lstrip("*") for kind in ("parameters", "attributes") for part in sections.get(kind, ())}
    missing = sorted(parameters - described - {"self", "cls"})
    if missing:
        yield f"Args lacks {', '.join(missing)}"
    annotation = None if target.is_class or "property" in target.labels else str(target.returns)
    if annotation not in (None, "None") and not {"returns", "yields"} & sections.keys():
        yield "Returns is missing"
    if "raises" not in sections and _raises(function):
        yield "Raises is missing"


def _fields(target: griffe.Class) -> set[str]:
    """The arguments of a dataclass, except those whose help is in their metadata."""
    return {
        name
        for name, field in target.attributes.items()
        if field.annotation and "property" not in field.labels and not isinstance(field.value, griffe.ExprCall)
    }


def _raises(function: griffe.Function | None) -> bool:
    """Whether the body of a function raises anything by itself."""
    if function is None:
        return False
    lines = function.lines_collection[function.filepath][function.lineno - 1 : function.endlineno]
    return any(isinstance(node, ast.Raise) for node in ast.walk(ast.parse(textwrap.dedent("\n".join(lines)))))
