"""The page's CSS and the small pieces of HTML around the widgets."""

from html import escape

from PIL import Image

from align_ti.attention.overlay import gradient
from align_ti.web.maps import AnswerMaps
from align_ti.web.opening import Opening
from align_ti.web.project import NAME, PAPER, project_url
from llava.inference.checkpoint import ChatModel
from llava.serve.timing import Timing

CSS = """
footer { display: none !important; }
.gradio-container { max-width: 1500px !important; margin: 0 auto !important; }
#title h1 { font-size: 1.45rem; font-weight: 650; margin: 0 0 .15rem; }
#title p, .hint { color: var(--body-text-color-subdued); font-size: .88rem; margin: 0; }
#title h1 small { font-size: .88rem; font-weight: 400; margin-left: .8rem; }
#title h1 a { margin-right: .8rem; }
/* The columns of both models share the rows of one grid, so that their widgets line up. */
.side-by-side { display: grid !important; grid-auto-columns: minmax(0, 1fr); }
.one-model { display: grid !important; grid-template-rows: subgrid; min-width: 0 !important; }
.rows-3 { grid-row: span 3; }
.rows-4 { grid-row: span 4; }
/* A label of two lines must not push its slider below the other one. */
.one-model > .form > .block, .one-model .wrap:has(> .head) { height: 100%; justify-content: space-between; }
.model-name { font-weight: 650; font-size: 1.02rem; overflow-wrap: anywhere; }
.model-name small { display: block; font-weight: 400; color: var(--body-text-color-subdued); }
.timing { font-size: .84rem; color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; }
@media (min-width: 520px) { .side-by-side { grid-auto-flow: column; } }
/* In a narrow window the picture is above the models, with the examples next to it. */
@media (max-width: 1000px) { #main { flex-direction: column; } }
@media (min-width: 520px) and (max-width: 1000px) {
  #picture { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); align-content: start; }
  #upload { grid-row: 1 / span 6; align-self: start; }
}
#examples { gap: .4rem; }
#examples button { justify-content: flex-start; text-align: left; padding: .3rem; font-weight: 400; }
#examples button img { width: 52px; height: 52px; border-radius: 4px; margin-right: .4rem; }
#notice:not(:has(.notice)), #upload-notice:not(:has(.notice)) { display: none; }
.notice { border-left: 4px solid var(--error-border-color, #dc2626); background: var(--error-background-fill, #fef2f2);
  color: var(--error-text-color, #7f1d1d); padding: .55rem .75rem; border-radius: 6px; font-size: .9rem; }
.legend { font-size: .84rem; line-height: 1.45; }
.legend .bar { height: 12px; border-radius: 3px; margin: .15rem 0 .1rem; }
.legend .ends { display: flex; justify-content: space-between; font-variant-numeric: tabular-nums; }
.legend .about { color: var(--body-text-color-subdued); margin-top: .3rem; overflow-wrap: anywhere; }
"""


def title(models: int) -> str:
    """The page header: project name, paper, project address, and what the page shows."""
    links = [("arXiv 2602.09483", PAPER), ("project", project_url())]
    linked = " ".join(
        f'<a href="{escape(address)}" target="_blank" rel="noopener noreferrer">{text}</a>'
        for text, address in links
        if address
    )
    both = "Teacher and student answer at the same time, so each is slower than on its own. " if models > 1 else ""
    return (
        f"<h1>{NAME}<small>{linked}</small></h1>"
        f"<p>{both}Below each answer: its speed, and where the words of the question attend in the picture. "
        "Click an earlier answer to see its map and speed.</p>"
    )


def model_name(model: ChatModel, role: str) -> str:
    """A column's heading; ``role`` is ``Teacher``, ``Student`` or empty."""
    size = _parameters(model.loaded.model.num_parameters())
    details = f"{size} parameters, {model.layers} layers, template {model.template.name}"
    name = f"{role}: {model.name}" if role else model.name
    return f'<div class="model-name">{escape(name)}<small>{escape(details)}</small></div>'


def map_heading(role: str) -> str:
    """The heading of a column's map."""
    where = f"{role}: where" if role else "Where"
    return f'<p class="hint">{where} the question attends, by layer (from 0)</p>'


def timing(measured: Timing | None) -> str:
    """The speed of an answer; an empty line before there is one."""
    return f'<div class="timing">{escape(str(measured)) if measured else "&nbsp;"}</div>'


def layer_label(layer: int, layers: int, opening: Opening) -> str:
    """The label of a layer slider."""
    mark = opening.seen_from(layer)
    return f"Layer {layer} of {layers}" + (f" ({mark})" if mark else "")


def notice(text: str) -> str:
    """An error message; nothing if the text is empty."""
    return f'<div class="notice" role="alert">{escape(text)}</div>' if text else ""


def legend(maps: AnswerMaps | None, picture: Image.Image | None, layer: int, question: str) -> str:
    """The colour bar and numbers of a map."""
    if maps is None or picture is None:
        return '<div class="legend"><div class="about">No map yet: it needs a picture and an answer.</div></div>'
    padding = maps.on_padding(picture, layer)
    outside = f", {_percent(padding)} of it to the padding around the picture" if padding > 0.0005 else ""
    return (
        '<div class="legend">'
        f'<div class="bar" role="img" aria-label="colours from no attention to the maximum" '
        f'style="background: linear-gradient(to right, {gradient()})"></div>'
        f'<div class="ends"><span>0</span><span>attention of one patch</span><span>{_percent(maps.peak(layer))}</span>'
        "</div>"
        f'<div class="about">Layer {layer}: {_percent(maps.total(layer))} of the attention of '
        f"“{escape(_short(question))}” goes to the picture{outside}.</div></div>"
    )


def _parameters(number: int) -> str:
    for size, unit in ((10**9, "billion"), (10**6, "million")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:,}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _short(question: str, longest: int = 90) -> str:
    line = " ".join(question.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
