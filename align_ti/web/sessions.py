"""The state of one visitor of the page: a picture, and a conversation about it with every model."""

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from PIL import Image

from align_ti.web.maps import AnswerMaps, measure
from llava.errors import InputError
from llava.inference.checkpoint import ChatModel
from llava.inference.sampling import Sampling
from llava.serve.chat import Chat
from llava.serve.timing import Timing

logger = logging.getLogger(__name__)

MAX_SESSIONS = 32
"""Maximum number of sessions; the one idle for longest is dropped first."""


@dataclass
class Column:
    """One model's side of the page.

    Attributes:
        chat: The conversation; its exchanges are the finished answers.
        maps: One entry for every exchange; None without a picture.
        timings: Speed of each answer.
        live: Question and partial answer while the model answers.
        shown: Index of the exchange whose map and timing are on the page.
        problem: Why the last question got no answer or no map.
    """

    chat: Chat
    maps: list[AnswerMaps | None] = field(default_factory=list)
    timings: list[Timing | None] = field(default_factory=list)
    live: tuple[str, str] | None = None
    shown: int = -1
    problem: str = ""

    def messages(self) -> list[tuple[str, str]]:
        """All questions and answers, including the one in progress."""
        return [*self.chat.exchanges[: len(self.maps)], *([self.live] if self.live else [])]

    def answer(self, question: str, sampling: Sampling, changed: Callable[[], None]) -> None:
        """Answer a question, then compute its maps; ``changed`` is called after every piece of text. Errors are stored,
        not raised."""
        asked, maps = len(self.chat.exchanges), None
        self.problem, self.live = "", (question, "")
        try:
            for piece in self.chat.ask(question, sampling):
                self.live = (question, self.live[1] + piece)
                changed()
            maps = measure(self.chat) if len(self.chat.exchanges) > asked else None
        except InputError as error:
            self.problem = str(error)
        except Exception:
            logger.exception("%s could not answer", self.chat.model.name)
            self.problem = "something went wrong; see the server's log"
        finally:
            if len(self.chat.exchanges) > asked:
                self.timings.append(self.chat.timing)
                self.maps.append(maps)
                self.shown = len(self.maps) - 1
            self.live = None


class Session:
    """One visitor. A new picture or ``begin`` starts new conversations; further output of an answer in progress is
    dropped.

    Attributes:
        picture: The picture of the conversation.
        columns: The conversations, one per model.
        layers: The layer shown for each model.
    """

    def __init__(self, models: Sequence[ChatModel]) -> None:
        self.models = models
        self.picture: Image.Image | None = None
        self.columns: list[Column] = []
        self.layers = [0] * len(models)
        self.begin()

    def begin(self) -> None:
        """Start new conversations about the same picture."""
        self.stop()
        self.columns = [Column(Chat(model, self.picture)) for model in self.models]

    def show(self, picture: Image.Image | None) -> None:
        """Start new conversations about another picture, or about none."""
        self.picture = picture
        self.begin()

    def stop(self) -> None:
        """Stop the answers in progress."""
        for column in self.columns:
            column.chat.stop()

    def select(self, column: int, index: int) -> None:
        """Show the map of an earlier answer, also for the other models if they were asked the same question."""
        chosen = self.columns[column].messages()
        for other in self.columns:
            if 0 <= index < min(len(other.maps), len(chosen)) and other.messages()[index][0] == chosen[index][0]:
                other.shown = index

    def answer(self, question: str, sampling: Sampling) -> Iterator[None]:
        """Ask all models at the same time; yields immediately, and whenever there is more to show.

        Raises:
            InputError: The question is invalid, or the last one is still being answered.
        """
        columns = self.columns
        if any(column.live for column in columns):
            raise InputError("the last question is still being answered; stop it first")
        question = columns[0].chat.clean(question)
        for column in columns:
            column.live = (question, "")
        news: queue.SimpleQueue[bool] = queue.SimpleQueue()

        def work(column: Column) -> None:
            try:
                column.answer(question, sampling, lambda: news.put(False))
            finally:
                news.put(True)

        threads = [threading.Thread(target=work, args=(column,), daemon=True) for column in columns]
        for thread in threads:
            thread.start()
        working = len(threads)
        try:
            yield
            while working:
                working -= news.get()
                while working and not news.empty():  # one update for everything that arrived meanwhile
                    working -= news.get()
                if self.columns is not columns:
                    return
                yield
        finally:
            if working:
                for column in columns:
                    column.chat.stop()
            for thread in threads:
                thread.join()


class Sessions:
    """The sessions, by the session id that the page gives each tab."""

    def __init__(self, models: Sequence[ChatModel], capacity: int = MAX_SESSIONS) -> None:
        self.models, self.capacity = models, capacity
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def of(self, name: str | None) -> Session:
        """The session of a visitor; a new one for a new visitor.

        Raises:
            InputError: The request has no session id.
        """
        if not name:
            raise InputError("the request belongs to no page; reload it")
        with self._lock:
            session = self._sessions.pop(name, None) or Session(self.models)
            self._sessions[name] = session
            while len(self._sessions) > self.capacity:
                self._sessions.popitem(last=False)[1].stop()
        return session

    def forget(self, name: str | None) -> None:
        """Drop the session of a visitor who left."""
        with self._lock:
            session = self._sessions.pop(name or "", None)
        if session is not None:
            session.stop()
