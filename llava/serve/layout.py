"""The widgets of the web page, and where they stand."""

from collections.abc import Sequence

import gradio as gr

from llava.serve import look
from llava.serve.model import ChatModel
from llava.serve.sampling import Sampling
from llava.serve.uploads import UploadLimits


class Widgets:
    """What a visitor sees, made inside an open ``gr.Blocks``. For every model there is one of ``chats``, ``maps``,
    ``layers`` and ``legends``."""

    def __init__(self, models: Sequence[ChatModel], sampling: Sampling, limits: UploadLimits) -> None:
        self.chats: list[gr.Chatbot] = []
        self.maps: list[gr.Image] = []
        self.layers: list[gr.Slider] = []
        self.legends: list[gr.HTML] = []
        gr.HTML(look.title(len(models)), elem_id="title")
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=280):
                self._lay_out_picture(sampling, limits)
            with gr.Column(scale=4 * len(models), min_width=340):
                self._lay_out_models(models)

    def _lay_out_picture(self, sampling: Sampling, limits: UploadLimits) -> None:
        self.upload = gr.Image(
            label="Picture",
            type="filepath",
            image_mode=None,
            sources=["upload", "clipboard"],
            height=300,
            buttons=[],
            elem_id="upload",
            placeholder="Drop a picture here or click to upload",
        )
        gr.HTML(f'<p class="hint">{limits}. A new picture begins a new conversation.</p>')
        self.notice = gr.HTML(elem_id="notice", padding=False)
        self.new = gr.Button("New conversation", elem_id="new", size="sm")
        with gr.Accordion("How answers are chosen", open=False):
            self.temperature = gr.Slider(
                0, 2, sampling.temperature, step=0.05, label="Temperature", info="0: always the likeliest word"
            )
            self.top_p = gr.Slider(0.05, 1, sampling.top_p, step=0.05, label="Top p")
            largest = max(1024, sampling.max_new_tokens)
            self.limit = gr.Slider(1, largest, sampling.max_new_tokens, step=1, label="Longest answer, in tokens")

    def _lay_out_models(self, models: Sequence[ChatModel]) -> None:
        roles = ("",) if len(models) == 1 else ("Teacher: ", "Student: ")
        with gr.Row():
            for number, (model, role) in enumerate(zip(models, roles, strict=True)):
                with gr.Column(min_width=300):
                    gr.HTML(look.model_name(model, role))
                    # Plain text: an answer is a model's words, never a page's.
                    self.chats.append(
                        gr.Chatbot(
                            show_label=False,
                            height=260,
                            render_markdown=False,
                            feedback_options=None,
                            placeholder="No question yet",
                            buttons=[],
                            elem_id=f"chat-{number}",
                            layout="bubble",
                            allow_file_downloads=False,
                        )
                    )
        with gr.Row(equal_height=True):
            self.question = gr.Textbox(
                show_label=False,
                placeholder="Ask something about the picture",
                scale=8,
                autofocus=True,
                max_lines=6,
                elem_id="question",
                label="Question",
            )
            self.ask = gr.Button("Ask", variant="primary", scale=1, min_width=90, elem_id="ask")
            self.stop = gr.Button("Stop", scale=1, min_width=90, interactive=False, elem_id="stop")
        with gr.Row():
            for number, model in enumerate(models):
                with gr.Column(min_width=300):
                    gr.HTML('<p class="hint">Where the question looks</p>')
                    self.maps.append(
                        gr.Image(
                            label="Where the question looks",
                            show_label=False,
                            interactive=False,
                            height=330,
                            format="png",
                            buttons=["download", "fullscreen"],
                            elem_id=f"map-{number}",
                        )
                    )
                    self.layers.append(
                        gr.Slider(
                            0,
                            max(model.layers - 1, 1),
                            model.layers - 1,
                            step=1,
                            label="Layer",
                            elem_id=f"layer-{number}",
                            interactive=model.layers > 1,
                        )
                    )
                    self.legends.append(gr.HTML(look.legend(None, None, 0, ""), elem_id=f"legend-{number}"))
