"""A local web page to chat with one model, or with a teacher and a student side by side.

    python -m align_ti.web.server --model-path TEACHER STUDENT

For every answer it shows where the question attends in the picture. The page can only be reached from this machine
unless ``--host`` or ``--share`` is given. It needs the extra ``serve``: pip install -e .[serve]
"""

import argparse
import logging
import os
import signal
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from llava.console import on_a_terminal, quiet_libraries
from llava.errors import InputError, run_cli
from llava.flags import add_flag, add_model_flags, add_sampling_flags
from llava.inference.sampling import Sampling

if TYPE_CHECKING:
    from align_ti.web.page import Page

logger = logging.getLogger("llava.serve")

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add_flag(
        parser,
        "--model-path",
        nargs="+",
        action="extend",
        required=True,
        metavar="CHECKPOINT",
        help="one checkpoint, or the teacher and the student",
    )
    add_model_flags(parser)
    add_sampling_flags(parser)
    add_flag(parser, "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all networks")
    add_flag(parser, "--port", type=int, default=7860, help="port; 0 for any free port")
    add_flag(parser, "--share", action="store_true", help="make the page public through Gradio's servers")
    add_flag(parser, "--max-upload-mb", type=float, default=10.0, help="maximum size of an image file, in MiB")
    add_flag(parser, "--max-megapixels", type=float, default=25.0, help="maximum size of an image, in megapixels")
    arguments = parser.parse_args(argv)
    if len(arguments.model_path) > 2:
        raise InputError(f"{len(arguments.model_path)} checkpoints; the page shows one, or two side by side")
    if arguments.max_upload_mb <= 0 or arguments.max_megapixels <= 0:
        raise InputError("--max-upload-mb and --max-megapixels must be above 0")
    return arguments


def launch(page: "Page", host: str, port: int, share: bool = False, block: bool = True) -> str:
    """Serve a page.

    Args:
        page: The page.
        host: Address to listen on.
        port: Port; 0 for any free port.
        share: Make the page public through Gradio's servers.
        block: Return only when the server ends.

    Returns:
        The page's address.

    Raises:
        InputError: The port is in use.
    """
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from align_ti.web.elements import CSS
    from align_ti.web.upload_guard import Guard

    middleware = [Middleware(Guard, max_bytes=page.limits.max_bytes)]
    if host in LOCAL_HOSTS and not share:
        # Reject requests from another site whose name resolves to this machine (DNS rebinding).
        middleware.insert(0, Middleware(TrustedHostMiddleware, allowed_hosts=[*LOCAL_HOSTS, "[::1]"]))
    elif host not in LOCAL_HOSTS:
        logger.warning("listening on %s: anyone who can reach this machine can use the page", host)
    try:
        _, address, _ = page.blocks.launch(
            server_name=host,
            server_port=port or _free_port(host),
            share=share,
            inbrowser=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=True,
            footer_links=[],
            allowed_paths=[],
            max_file_size=page.limits.max_bytes,
            strict_cors=True,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            app_kwargs={"middleware": middleware},
            theme=gr.themes.Soft(primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            css=CSS,
        )
    except OSError as error:
        raise InputError(f"port {port} of {host} is in use or not allowed; choose another with --port") from error
    logger.info("the page is at %s (Ctrl-C ends the server)", page.blocks.share_url or address)
    if block:
        page.blocks.block_thread()
    return address


def _free_port(host: str) -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    arguments = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    sampling = Sampling(arguments.temperature, arguments.top_p, arguments.max_new_tokens)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that uploads are removed in this case, too
    with tempfile.TemporaryDirectory(prefix="align-ti-uploads-") as uploads:
        prepare_gradio(uploads)
        from align_ti.web.maps import WATCHED_ATTENTION
        from align_ti.web.page import Page
        from llava.inference.checkpoint import ChatModel
        from llava.serve.uploads import UploadLimits

        quiet_libraries(bars=on_a_terminal())
        limits = UploadLimits(round(arguments.max_upload_mb * 2**20), round(arguments.max_megapixels * 1e6))
        options: dict[str, Any] = {
            "template": arguments.conv_mode,
            "device": arguments.device,
            "dtype": arguments.dtype,
            "attn_implementation": WATCHED_ATTENTION,
            "load_8bit": arguments.load_8bit,
            "load_4bit": arguments.load_4bit,
        }
        models = [ChatModel.load(path, arguments.model_base, **options) for path in arguments.model_path]
        launch(Page(models, sampling, limits), arguments.host, arguments.port, arguments.share)


def prepare_gradio(uploads: str) -> None:
    """Set Gradio's environment variables: no usage reports, and the folder of uploads. Call it before importing the
    page's modules.

    Raises:
        InputError: Gradio is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = uploads
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise InputError("the web page needs Gradio: pip install -e .[serve]") from error


if __name__ == "__main__":
    run_cli(main)
