"""Chat with a checkpoint in the terminal (``llava.serve.cli``) or on a local web page (``align_ti.web.server``)."""
