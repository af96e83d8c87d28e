"""Formulas as drawings inside the page (SVG, in the colour of the text): the built site needs no network for them."""

import re
from typing import Any
from xml.etree import ElementTree

import ziamath
from latex2mathml.converter import convert

ziamath.config.svg2 = False  # glyphs as paths: names of symbols would collide between the formulas of a page
ziamath.config.precision = 2  # digits of coordinates

SIZE = 16.0
"""Units of a drawing that are one em of the text."""


def svg(formula: str, block: bool) -> str:
    """A formula of LaTeX as an ``<svg>`` element, as large as the text around it and on its baseline.

    Args:
        formula: Without dollars.
        block: Whether it stands on a line of its own.

    Raises:
        ValueError: It has an unknown command; the build stops.
    """
    unknown = re.search(r"\\\w+", convert(formula))
    if unknown:
        raise ValueError(f"{unknown[0]} in the formula {formula!r} cannot be drawn")
    drawing = ziamath.Math.fromlatex(formula, size=SIZE, color="currentColor", inline=not block, margin=0)
    element = drawing.svgxml()
    width, height = (float(element.attrib.pop(name)) / SIZE for name in ("width", "height"))
    style = f"width:{width:.3f}em;height:{height:.3f}em;vertical-align:{drawing.getyofst() / SIZE:.3f}em"
    element.attrib |= {"role": "img", "aria-label": formula, "style": style}
    return ElementTree.tostring(element, encoding="unicode")


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    from docutils import nodes

    def inline(translator: Any, node: Any) -> None:
        translator.body.append(f'<span class="math">{svg(node.astext(), block=False)}</span>')
        raise nodes.SkipNode

    def block(translator: Any, node: Any) -> None:
        number = f'<span class="eqno">({node["number"]})</span>' if node["number"] else ""
        translator.body.append(f'<div class="math">{number}{svg(node.astext(), block=True)}</div>\n')
        raise nodes.SkipNode

    app.add_html_math_renderer("svg", (inline, None), (block, None))
    return {"version": "1", "parallel_read_safe": True}
