"""Sphinx configuration: ``sphinx-build -W --keep-going -b html docs docs/_build/html``."""

import importlib.util
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
sys.path[:0] = [str(REPOSITORY), str(HERE / "_ext")]

with (REPOSITORY / "pyproject.toml").open("rb") as file:
    about = tomllib.load(file)["project"]

project = "Align-TI"
author = "the authors of Align-TI's open implementation"
release = version = about["version"]
copyright = "the contributors"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_parser",
    "sphinx_copybutton",
    "docstrings",
    "flag_tables",
    "formulas",
]

source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "_ext", "figures", "demo"]
templates_path = ["_templates"]
smartquotes = False  # "--flag" stays "--flag"

# Markdown
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# API pages: docs/api.md lists the modules, autosummary writes a page for each into docs/api/ (ignored by git).
autosummary_generate = True
autosummary_generate_overwrite = True
autosummary_ignore_module_all = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
# Optional packages: mocked only where they are not installed.
OPTIONAL = ("gradio", "starlette", "bitsandbytes", "flash_attn", "open_clip", "timm", "lmms_eval", "scipy")
autodoc_mock_imports = [name for name in OPTIONAL if importlib.util.find_spec(name) is None]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes are described once, in the class's docstring

# Appearance
html_theme = "furo"
html_math_renderer = "svg"
html_title = f"Align-TI {release}"
html_static_path = ["_static"]
html_css_files = ["align_ti.css"]
html_show_sphinx = False
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
