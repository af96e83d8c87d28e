"""To and from transformers' own LLaVA (``LlavaForConditionalGeneration``), and model cards.

``to_hf`` and ``from_hf`` convert, ``card`` writes the ``README.md`` of a run, ``hub`` uploads. The command line is
``python -m llava.export``.
"""
