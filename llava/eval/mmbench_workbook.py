"""The workbook for MMBench's server: the table without images, with a column of predictions."""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from llava.inference.question import Question

FILE_NAME = "mmbench_submission.xlsx"
DROPPED = frozenset(("hint", "category", "source", "image", "comment", "l2-category"))
PREDICTION_COLUMN = 6
"""After index, question and the four options."""

_NOT_IN_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def write_workbook(questions: Sequence[Question], texts: Sequence[str | None], folder: Path) -> str:
    """Write the workbook into ``folder``, one row per question; a missing answer becomes an empty prediction.

    Returns:
        Where it was written or, if openpyxl is missing, how to install it.
    """
    if importlib.util.find_spec("openpyxl") is None:
        return f"{FILE_NAME} not written: openpyxl is not installed (pip install 'align-ti[eval]')"
    from openpyxl import Workbook

    columns = [name for name in questions[0].info if name not in DROPPED] if questions else []
    columns.insert(PREDICTION_COLUMN, "prediction")
    book = Workbook()
    sheet = book.active
    sheet.append(columns)
    for line, (question, text) in enumerate(zip(questions, texts, strict=True), 2):
        values = {**question.info, "index": int(question.question_id), "prediction": text or ""}
        for column, name in enumerate(columns, 1):
            value = values[name]
            cell = sheet.cell(line, column, _NOT_IN_XML.sub(" ", value) if isinstance(value, str) else value)
            if isinstance(value, str):
                cell.data_type = "s"  # an answer that begins with "=" is not a formula
    path = folder / FILE_NAME
    book.save(path)
    return str(path)
