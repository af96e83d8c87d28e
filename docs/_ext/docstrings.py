"""Small repairs that make this project's docstrings good reStructuredText.

- An indented block of a module's docstring is code or a command: it becomes a literal block.
- ``a, b: text`` in ``Args`` and ``Attributes`` describes several things together; Sphinx would take ``a,`` for a type.
- Between a name and its description stands a dash (Sphinx writes ``--``, and leaves it to its smart quotes, which would
  make dashes of flags too).
"""

import re
from typing import Any

SEVERAL = re.compile(r"^(:(?:param|ivar) )((?:[\w*\\]+, )+[\w*\\]+):")


def literal_blocks(lines: list[str]) -> list[str]:
    """Put ``::`` before every indented block that begins a paragraph of its own and follows none yet."""
    out: list[str] = []
    inside = False
    for index, line in enumerate(lines):
        indented = line.startswith("    ")
        if indented and not inside and index and not lines[index - 1].strip():
            before = next((text for text in reversed(out) if text.strip()), "")
            if not before.endswith("::"):
                out += ["::", ""]
            inside = True
        elif line.strip() and not indented:
            inside = False
        out.append(line)
    return out


def joined_names(line: str) -> str:
    """``:param a, b: text`` as one name."""
    return SEVERAL.sub(lambda match: f"{match[1]}{match[2].replace(', ', ',')}:", line)


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    from docutils import nodes
    from sphinx.addnodes import literal_strong

    def repair(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
        lines[:] = map(joined_names, literal_blocks(lines) if what == "module" else list(lines))

    def retouch(app: Any, doctree: nodes.document) -> None:
        for text in list(doctree.findall(nodes.Text)):
            if text == " -- ":
                text.parent.replace(text, nodes.Text(" \N{EN DASH} "))
            elif isinstance(text.parent, literal_strong) and "," in text:
                text.parent.replace(text, nodes.Text(", ".join(text.split(","))))

    app.connect("autodoc-process-docstring", repair, priority=900)  # after napoleon
    app.connect("doctree-read", retouch)
    return {"version": "1", "parallel_read_safe": True}
