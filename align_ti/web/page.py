"""The web page: event handlers of its widgets. Conversations and measurements are in ``align_ti.web.sessions``."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from align_ti.web import elements
from align_ti.web.examples import EXAMPLES
from align_ti.web.layout import Widgets
from align_ti.web.opening import openings
from align_ti.web.sessions import Column, Session, Sessions
from llava.errors import InputError
from llava.inference.checkpoint import ChatModel
from llava.inference.sampling import Sampling
from llava.serve.uploads import UploadLimits, uploaded_picture

SECONDS_BETWEEN_UPDATES = 0.08
WAITING = 16
"""Maximum number of queued questions; further ones are rejected with a message."""

LOST = "the server has forgotten this conversation; upload the picture again"
NO_PICTURE = (
    "there is no picture to ask about: upload one, or click an example (to chat without a picture, tick “Allow "
    "questions without a picture”)"
)

Update = dict[Any, Any]


class Page:
    """One page and its event handlers. All state is in the visitor's session."""

    def __init__(self, models: Sequence[ChatModel], sampling: Sampling, limits: UploadLimits) -> None:
        self.models, self.limits = models, limits
        self.openings = openings([(model.path, model.layers) for model in models])
        self.sessions = Sessions(models)
        with gr.Blocks(title="Align-TI", analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)) as blocks:
            self.blocks = blocks
            self.widgets = Widgets(models, self.openings, sampling, limits)
            self._connect()
        blocks.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)

    def _connect(self) -> None:
        columns = [*self.widgets.chats, *self.widgets.timings, *self.widgets.maps, *self.widgets.legends]
        notices = [self.widgets.notice, self.widgets.upload_notice]
        controls = [self.widgets.question, self.widgets.ask, self.widgets.stop, *notices]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        gr.on(
            [self.widgets.ask.click, self.widgets.question.submit],
            self._asked,
            [
                self.widgets.upload,
                self.widgets.question,
                self.widgets.pictureless,
                self.widgets.temperature,
                self.widgets.top_p,
                self.widgets.limit,
                *self.widgets.layers,
            ],
            [*columns, *controls],
            trigger_mode="once",
            preprocess=False,
            **{
                **quiet,
                "show_progress": "minimal",
                "show_progress_on": self.widgets.question,
            },  # the position in the queue
        )
        now: dict[str, Any] = {"queue": False, **quiet}
        self.widgets.stop.click(self._stopped, None, None, **now)
        self.widgets.new.click(self._begun, self.widgets.layers, [*columns, *controls], **now)
        # The widget's own preprocessing is skipped: only llava.serve.uploads opens the picture.
        gr.on(
            [self.widgets.upload.upload, self.widgets.upload.clear],
            self._uploaded,
            [self.widgets.upload, *self.widgets.layers],
            [self.widgets.upload, *columns, *controls],
            preprocess=False,
            **now,
        )
        for number in range(len(EXAMPLES)):
            self._connect_example(number, columns, controls, now)
        for number in range(len(self.models)):
            self._connect_column(number, columns, controls, now)
        self.blocks.unload(self._left)

    def _connect_example(self, number: int, columns: list[Any], controls: list[Any], now: dict[str, Any]) -> None:
        button, example = self.widgets.examples[number], EXAMPLES[number]
        assert button.icon is not None
        served = button.icon["path"]  # the copy that the server delivers

        def chosen(request: gr.Request, *layers: object) -> Update:
            session = self._session(request, layers)
            session.show(example.picture())
            return {
                **self._fresh(session),
                self.widgets.upload: served,
                self.widgets.question: example.question,
            }

        button.click(chosen, self.widgets.layers, [self.widgets.upload, *columns, *controls], **now)

    def _connect_column(self, number: int, columns: list[Any], controls: list[Any], now: dict[str, Any]) -> None:
        def layer_changed(request: gr.Request, layer: object) -> Update:
            session = self.sessions.of(request.session_hash)
            session.layers[number] = shown = self._layer(number, layer)
            label = elements.layer_label(shown, self.models[number].layers, self.openings[number])
            return {**self._shown(session, number), self.widgets.layers[number]: gr.update(label=label)}

        def selected(request: gr.Request, event: gr.SelectData, *layers: object) -> Update:
            session = self._session(request, layers)
            index = event.index[0] if isinstance(event.index, list | tuple) else event.index
            session.select(number, int(index) // 2)
            return self._all_shown(session)

        answer = [self.widgets.maps[number], self.widgets.legends[number], self.widgets.timings[number]]
        self.widgets.layers[number].change(
            layer_changed,
            [self.widgets.layers[number]],
            [*answer, self.widgets.layers[number]],
            **now,
        )
        every = [*self.widgets.maps, *self.widgets.legends, *self.widgets.timings]
        self.widgets.chats[number].select(selected, self.widgets.layers, every, **now)
        self.widgets.chats[number].clear(self._begun, self.widgets.layers, [*columns, *controls], **now)

    # Event handlers

    def _asked(
        self,
        request: gr.Request,
        upload: object,
        question: object,
        pictureless: object,
        temperature: object,
        top_p: object,
        limit: object,
        *layers: object,
    ) -> Iterator[Update]:
        try:
            session = self._session(request, layers)
            if (
                upload is None and session.picture is not None
            ):  # the picture was removed, and the question came before that event
                session.show(None)
            if session.picture is None and (upload is not None or pictureless is not True):
                raise InputError(LOST if upload is not None else NO_PICTURE)
            sampling = Sampling(_number(temperature), _number(top_p), int(_number(limit)))
            answers = session.answer(str(question or ""), sampling)
            columns = session.columns
            drawn, last = [len(column.maps) for column in columns], 0.0
            started = False
            for _ in answers:
                fresh = [number for number, column in enumerate(columns) if len(column.maps) > drawn[number]]
                if started and not fresh and time.monotonic() - last < SECONDS_BETWEEN_UPDATES:
                    continue
                update = self._said(columns)
                for number in fresh:
                    drawn[number] = len(columns[number].maps)
                    update |= self._shown(session, number)
                if not started:
                    started = True
                    update |= {self.widgets.question: "", **self._busy(True), **self._no_notices()}
                    update |= dict.fromkeys(self.widgets.timings, elements.timing(None))
                last = time.monotonic()
                yield update
            if session.columns is columns:
                problems = [f"{c.chat.model.name}: {c.problem}" for c in columns if c.problem]
                yield {
                    **self._said(columns),
                    **self._timings(columns),
                    **self._busy(False),
                    self.widgets.notice: elements.notice("; ".join(problems)),
                }
        except InputError as error:
            yield {**self._busy(False), self.widgets.notice: elements.notice(str(error))}

    def _uploaded(self, request: gr.Request, upload: object, *layers: object) -> Update:
        session = self._session(request, layers)
        try:
            path = upload.get("path") if isinstance(upload, dict) else None
            picture = uploaded_picture(Path(path), get_upload_folder(), self.limits) if path else None
        except InputError as error:
            session.show(None)
            return {
                **self._fresh(session),
                self.widgets.upload: None,
                self.widgets.upload_notice: elements.notice(str(error)),
            }
        session.show(picture)
        return self._fresh(session)

    def _begun(self, request: gr.Request, *layers: object) -> Update:
        session = self._session(request, layers)
        session.begin()
        return self._fresh(session)

    def _stopped(self, request: gr.Request) -> None:
        self.sessions.of(request.session_hash).stop()

    def _left(self, request: gr.Request) -> None:
        self.sessions.forget(request.session_hash)

    def _session(self, request: gr.Request, layers: Sequence[object]) -> Session:
        """The visitor's session, with the layers set on the sliders."""
        session = self.sessions.of(request.session_hash)
        session.layers = [self._layer(number, layer) for number, layer in enumerate(layers)]
        return session

    def _layer(self, number: int, layer: object) -> int:
        return min(max(int(_number(layer)), 0), self.models[number].layers - 1)

    # Updates of the widgets

    def _said(self, columns: Sequence[Column]) -> Update:
        return {chat: _messages(column.messages()) for chat, column in zip(self.widgets.chats, columns, strict=True)}

    def _shown(self, session: Session, number: int) -> Update:
        """Map, legend and timing of the selected answer of a column."""
        column, layer = session.columns[number], session.layers[number]
        maps = column.maps[column.shown] if 0 <= column.shown < len(column.maps) else None
        question = column.messages()[column.shown][0] if maps is not None else ""
        drawn = maps.picture(session.picture, layer) if maps is not None and session.picture is not None else None
        return {
            self.widgets.maps[number]: drawn,
            self.widgets.legends[number]: elements.legend(maps, session.picture, layer, question),
            self.widgets.timings[number]: _timing(column),
        }

    def _all_shown(self, session: Session) -> Update:
        update: Update = {}
        for number in range(len(self.models)):
            update |= self._shown(session, number)
        return update

    def _timings(self, columns: Sequence[Column]) -> Update:
        return {html: _timing(column) for html, column in zip(self.widgets.timings, columns, strict=True)}

    def _fresh(self, session: Session) -> Update:
        return {
            **self._said(session.columns),
            **self._all_shown(session),
            **self._busy(False),
            **self._no_notices(),
        }

    def _no_notices(self) -> Update:
        return {self.widgets.notice: "", self.widgets.upload_notice: ""}

    def _busy(self, busy: bool) -> Update:
        return {self.widgets.ask: gr.update(interactive=not busy), self.widgets.stop: gr.update(interactive=busy)}


def _timing(column: Column) -> str:
    return elements.timing(column.timings[column.shown] if 0 <= column.shown < len(column.timings) else None)


def _messages(exchanges: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [
        {"role": role, "content": text}
        for question, answer in exchanges
        for role, text in (("user", question), ("assistant", answer))
    ]


def _number(value: object) -> float:
    """A number sent by the page.

    Raises:
        InputError: The value is not a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{value!r} is not a number")
    return float(value)
