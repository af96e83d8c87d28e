"""Tables of command-line flags, made from the dataclasses that parse them.

In a page::

    ```{flags} align_ti.training.arguments.DistillArguments
    ```

gives a row for every field that the class itself defines (not those it inherits): flag, default and help. And::

    ```{names} llava.train.run_record.FREE_TO_CHANGE
    ```

lists a collection of names in alphabetical order.
"""

import dataclasses
from importlib import import_module
from typing import Any, NamedTuple


class FlagRow(NamedTuple):
    """One flag of a command line.

    Attributes:
        flag: As it is written.
        default: Its default; "" if it is unset, None if the flag is required.
        help: Its help text.
    """

    flag: str
    default: str | None
    help: str


def flag_rows(name: str) -> list[FlagRow]:
    """The flags that a dataclass defines, in its order.

    Args:
        name: Module and class, ``package.module.Class``.

    Raises:
        ValueError: Not a dataclass, or a field without help.
    """
    module, _, class_name = name.rpartition(".")
    found: Any = getattr(import_module(module), class_name)
    if not dataclasses.is_dataclass(found):
        raise ValueError(f"{name} is not a dataclass")
    rows = []
    for field in dataclasses.fields(found):
        if field.name not in found.__annotations__:
            continue
        if not field.metadata.get("help"):
            raise ValueError(f"{name}.{field.name} has no help text")
        rows.append(FlagRow(f"--{field.name}", _default(field), field.metadata["help"]))
    return rows


def names_in(name: str) -> list[str]:
    """The words of a collection, sorted; ``name`` is ``package.module.COLLECTION``."""
    module, _, collection = name.rpartition(".")
    return sorted(getattr(import_module(module), collection))


def _default(field: dataclasses.Field) -> str | None:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return None
    return "" if value is None else str(value)


def setup(app: Any) -> dict[str, Any]:
    """Register the directive with Sphinx."""
    from docutils import nodes
    from sphinx.util.docutils import SphinxDirective

    class FromCode(SphinxDirective):
        """A directive with the dotted name of something in the code; the page is made again when its file changes."""

        required_arguments = 1

        def make(self, name: str) -> nodes.Node:
            raise NotImplementedError

        def run(self) -> list[nodes.Node]:
            name = self.arguments[0]
            try:
                made = self.make(name)
                file = import_module(name.rpartition(".")[0]).__file__
            except (ImportError, AttributeError, ValueError) as error:
                raise self.error(f"{self.name}: {error}") from error
            if file:
                self.env.note_dependency(file)
            return [made]

    class Flags(FromCode):
        """``flags``: see the module."""

        def make(self, name: str) -> nodes.Node:
            return _table(flag_rows(name))

    class Names(FromCode):
        """``names``: see the module."""

        def make(self, name: str) -> nodes.Node:
            words = nodes.paragraph(classes=["names"])
            for index, word in enumerate(names_in(name)):
                words += [nodes.Text(", " if index else ""), nodes.literal(text=word)]
            return words

    def _table(rows: list[FlagRow]) -> nodes.table:
        group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in (28, 14, 58)), cols=3)
        group += nodes.thead("", _row(*(nodes.Text(word) for word in ("flag", "default", "meaning"))))
        body = nodes.tbody()
        for row in rows:
            word = {None: "required", "": "unset"}.get(row.default)
            default = nodes.literal(text=row.default) if word is None else nodes.emphasis(text=word)
            body += _row(nodes.literal(text=row.flag), default, nodes.Text(row.help))
        group += body
        return nodes.table("", group, classes=["flags"])

    def _row(*cells: nodes.Node) -> nodes.row:
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))

    app.add_directive("flags", Flags)
    app.add_directive("names", Names)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
