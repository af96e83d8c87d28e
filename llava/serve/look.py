"""How the page looks: its colours and the small pieces of HTML around the widgets."""

from html import escape

from PIL import Image

from llava.serve.maps import AnswerMaps
from llava.serve.model import ChatModel
from llava.serve.overlay import gradient

CSS = """
footer { display: none !important; }
.gradio-container { max-width: 1500px !important; margin: 0 auto !important; }
#title h1 { font-size: 1.45rem; font-weight: 650; margin: 0 0 .15rem; }
#title p, .hint { color: var(--body-text-color-subdued); font-size: .88rem; margin: 0; }
.model-name { font-weight: 650; font-size: 1.02rem; overflow-wrap: anywhere; }
.model-name small { font-weight: 400; color: var(--body-text-color-subdued); margin-left: .5rem; }
.notice { border-left: 4px solid var(--error-border-color, #dc2626); background: var(--error-background-fill, #fef2f2);
  color: var(--error-text-color, #7f1d1d); padding: .55rem .75rem; border-radius: 6px; font-size: .9rem; }
.legend { font-size: .84rem; line-height: 1.45; }
.legend .bar { height: 12px; border-radius: 3px; margin: .15rem 0 .1rem; }
.legend .ends { display: flex; justify-content: space-between; font-variant-numeric: tabular-nums; }
.legend .about { color: var(--body-text-color-subdued); margin-top: .3rem; overflow-wrap: anywhere; }
"""


def title(models: int) -> str:
    """The head of the page."""
    both = "Both models answer the same question. " if models > 1 else ""
    return (
        "<h1>Ask about a picture</h1>"
        f"<p>{both}Under each answer: where the words of the question look in the picture. "
        "Click an earlier answer to see its map again.</p>"
    )


def model_name(model: ChatModel, role: str) -> str:
    """A column's heading."""
    details = f"{model.layers} layers, template {model.template.name}"
    return f'<div class="model-name">{escape(role + model.name)}<small>{escape(details)}</small></div>'


def notice(text: str) -> str:
    """What went wrong, in words; nothing for no text."""
    return f'<div class="notice" role="alert">{escape(text)}</div>' if text else ""


def legend(maps: AnswerMaps | None, picture: Image.Image | None, layer: int, question: str) -> str:
    """Colour bar and figures of a map."""
    if maps is None or picture is None:
        return '<div class="legend"><div class="about">No map yet: it needs a picture and an answer.</div></div>'
    padding = maps.on_padding(picture, layer)
    outside = f", {_percent(padding)} of it beside the picture, on the padding" if padding > 0.0005 else ""
    return (
        '<div class="legend">'
        f'<div class="bar" role="img" aria-label="colours from no attention to the most" '
        f'style="background: linear-gradient(to right, {gradient()})"></div>'
        f'<div class="ends"><span>0</span><span>attention of one patch</span><span>{_percent(maps.peak(layer))}</span>'
        "</div>"
        f'<div class="about">Layer {layer}: {_percent(maps.total(layer))} of the attention of '
        f"“{escape(_short(question))}” goes to the picture{outside}.</div></div>"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _short(question: str, longest: int = 90) -> str:
    line = " ".join(question.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
