"""The widgets of the web page and their layout."""

from collections.abc import Sequence

import gradio as gr

from align_ti.web import elements
from align_ti.web.examples import EXAMPLES
from align_ti.web.opening import Opening
from llava.inference.checkpoint import ChatModel
from llava.inference.sampling import Sampling
from llava.serve.uploads import UploadLimits


class Widgets:
    """The widgets of a page, created inside an open ``gr.Blocks``. ``chats``, ``timings``, ``maps``, ``layers`` and
    ``legends`` have one entry per model; there is one button per example.

    Args:
        models: One model, or teacher and student.
        openings: The layer that each model's map shows first.
        sampling: Initial values of the sampling sliders.
        limits: Limits of an upload.
    """

    def __init__(
        self, models: Sequence[ChatModel], openings: Sequence[Opening], sampling: Sampling, limits: UploadLimits
    ) -> None:
        self.chats: list[gr.Chatbot] = []
        self.timings: list[gr.HTML] = []
        self.maps: list[gr.Image] = []
        self.layers: list[gr.Slider] = []
        self.legends: list[gr.HTML] = []
        self.examples: list[gr.Button] = []
        gr.HTML(elements.title(len(models)), elem_id="title")
        with gr.Row(equal_height=False, elem_id="main"):
            with gr.Column(scale=3, min_width=280, elem_id="picture"):
                self._lay_out_picture(sampling, limits)
            with gr.Column(scale=4 * len(models), min_width=340):
                self._lay_out_answers(models)
                self._lay_out_question()
                self._lay_out_maps(models, openings)

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
        self.upload_notice = gr.HTML(elem_id="upload-notice", padding=False)
        gr.HTML(f'<p class="hint">{limits}. A new picture starts a new conversation.</p>', padding=False)
        with gr.Column(elem_id="examples"):
            for number, example in enumerate(EXAMPLES):
                button = gr.Button(example.question, icon=example.path, size="sm", elem_id=f"example-{number}")
                assert button.icon is not None
                button.keep_in_cache.add(button.icon["path"])  # other served files are deleted after an hour
                self.examples.append(button)
        self.pictureless = gr.Checkbox(
            label="Allow questions without a picture", container=False, elem_id="pictureless"
        )
        self.new = gr.Button("New conversation", elem_id="new", size="sm")
        with gr.Accordion("Sampling", open=False):
            self.temperature = gr.Slider(
                0, 2, sampling.temperature, step=0.05, label="Temperature", info="0: always the most likely token"
            )
            self.top_p = gr.Slider(0.05, 1, sampling.top_p, step=0.05, label="Top p")
            largest = max(1024, sampling.max_new_tokens)
            self.limit = gr.Slider(
                1, largest, sampling.max_new_tokens, step=1, label="Maximum answer length, in tokens"
            )

    def _lay_out_answers(self, models: Sequence[ChatModel]) -> None:
        with gr.Row(elem_classes="side-by-side"):
            for number, (model, role) in enumerate(zip(models, _roles(models), strict=True)):
                with gr.Column(elem_classes="one-model rows-3"):
                    gr.HTML(elements.model_name(model, role), padding=False)
                    # Plain text: an answer must never be rendered as HTML.
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
                    self.timings.append(gr.HTML(elements.timing(None), elem_id=f"timing-{number}", padding=False))

    def _lay_out_question(self) -> None:
        self.notice = gr.HTML(elem_id="notice", padding=False)
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
            self.ask = gr.Button("Ask", variant="primary", scale=1, min_width=64, elem_id="ask")
            self.stop = gr.Button("Stop", scale=1, min_width=64, interactive=False, elem_id="stop")

    def _lay_out_maps(self, models: Sequence[ChatModel], openings: Sequence[Opening]) -> None:
        with gr.Row(elem_classes="side-by-side"):
            for number, (model, role, opening) in enumerate(zip(models, _roles(models), openings, strict=True)):
                with gr.Column(elem_classes="one-model rows-4"):
                    gr.HTML(elements.map_heading(role), padding=False)
                    self.maps.append(
                        gr.Image(
                            label="Attention of the question",
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
                            opening.layer,
                            step=1,
                            label=elements.layer_label(opening.layer, model.layers, opening),
                            elem_id=f"layer-{number}",
                            interactive=model.layers > 1,
                        )
                    )
                    self.legends.append(
                        gr.HTML(elements.legend(None, None, 0, ""), elem_id=f"legend-{number}", padding=False)
                    )


def _roles(models: Sequence[ChatModel]) -> tuple[str, ...]:
    return ("",) if len(models) == 1 else ("Teacher", "Student")
