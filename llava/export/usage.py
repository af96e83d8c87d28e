"""How to use an exported model, as Markdown for its card."""

from __future__ import annotations

from llava.export.to_hf import Exported


def usage(exported: Exported, name: str) -> str:
    """The section of an exported model's card.

    Args:
        exported: Facts about the export.
        name: Name or address of the model.
    """
    stop = f', stop_strings=["{exported.stop_string}"], tokenizer=processor.tokenizer' if exported.stop_string else ""
    code = f'''```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("{name}", dtype="auto")
processor = AutoProcessor.from_pretrained("{name}")
content = [{{"type": "image", "path": "picture.jpg"}}, {{"type": "text", "text": "What is in the picture?"}}]
inputs = processor.apply_chat_template(
    [{{"role": "user", "content": content}}],
    add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
)
output = model.generate(**inputs, max_new_tokens=128{stop})
print(processor.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
```'''
    notes = [
        f"The prompt template is `{exported.template}`, with images first in their turn.",
        f"To serve it: `vllm serve {name}`, with `temperature` 0 in the requests for greedy answers.",
        "Images are resized with Pillow in training; if torchvision is installed, transformers uses it instead, and "
        'pixel values differ slightly: `AutoProcessor.from_pretrained(..., backend="pil")` gives the same values. '
        "Scale 16-bit greyscale images to 8 bits first.",
    ]
    if exported.stop_string:
        notes.append(
            f"A turn ends with `{exported.stop_string}`, which is not a single token: pass it to servers as a stop "
            "string."
        )
    if exported.starts_with_bos:
        notes.append(
            "The prompt begins with the tokenizer's BOS token, which transformers adds by itself; in requests to "
            "vLLM's chat interface set `add_special_tokens` to true."
        )
    return "## Use\n\n" + code + "\n\n" + "\n".join(f"- {note}" for note in notes)
