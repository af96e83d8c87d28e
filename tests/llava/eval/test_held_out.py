"""Cross-entropy of held-out conversations: one after the other by hand, in any batches, from the command line."""

import json
import math
import sys
from dataclasses import asdict

import pytest
import torch

from llava.constants import IGNORE_INDEX
from llava.conversation import get_template
from llava.data.annotations.table import open_annotations
from llava.data.images import load_image, preprocess_image
from llava.data.tokenize import tokenize_conversation
from llava.errors import InputError
from llava.eval.held_out import main, measure
from llava.model.builder import load_pretrained_model


def test_against_one_conversation_at_a_time(checkpoint, world):
    """Text-only ones and ones of several turns among them; every target counts the same, whatever its conversation."""
    tokenizer, model, processor, _ = load_pretrained_model(checkpoint, torch_dtype=torch.float64)
    annotations = open_annotations(str(world.data))
    nats, targets, greedy = 0.0, 0, 0
    for index in range(len(annotations)):
        entry = annotations[index]
        tokens = tokenize_conversation(entry["conversations"], tokenizer, get_template("qwen"), len(entry["image"]))
        pictures = [load_image(world.images / path) for path in entry["image"]]
        pixels = [
            preprocess_image(picture, processor, model.config.image_aspect_ratio).double() for picture in pictures
        ]
        with torch.no_grad():
            batch = model.splice_inputs(
                tokens.input_ids[None],
                labels=tokens.labels[None],
                images=torch.stack(pixels) if pixels else None,
            )
            logits = model(inputs_embeds=batch.inputs_embeds).logits[0].double().log_softmax(-1)
        labels = batch.labels[0].tolist()
        places = [place for place, label in enumerate(labels) if label != IGNORE_INDEX]
        nats -= sum(float(logits[place - 1, labels[place]]) for place in places)
        targets += len(places)
        greedy += all(int(logits[place - 1].argmax()) == labels[place] for place in places)
    arguments = (model, tokenizer, processor, get_template("qwen"), annotations, world.images)
    found = measure(*arguments, batch_size=5)
    assert found.tokens == targets and found.conversations == len(annotations) == 24
    assert math.isclose(found.cross_entropy, nats / targets, rel_tol=1e-5)
    assert found.greedy == 100 * greedy / 24
    whole = measure(*arguments, batch_size=24)
    assert asdict(whole) == pytest.approx(asdict(found), rel=1e-5)


def test_the_command_and_its_refusals(checkpoint, world, tmp_path, monkeypatch, capsys):
    out = tmp_path / "deep" / "held_out.json"
    command = ["held_out", "--model-path", str(checkpoint), "--data", str(world.data), "--conv-mode", "qwen"]
    command += ["--image-folder", str(world.images), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    main()
    found = json.loads(out.read_text())
    assert found["conversations"] == 24 and f"{found['cross_entropy']:.4f} nats per token" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command, "--batch-size", "0"])
    with pytest.raises(InputError, match="--batch-size is 0"):
        main()
    empty = tmp_path / "empty.json"
    empty.write_text("[]")
    monkeypatch.setattr(sys, "argv", [*command, "--data", str(empty)])
    with pytest.raises(InputError):
        main()
