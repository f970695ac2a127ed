"""The site: ``sphinx-build -W --keep-going -b html docs build/site``, without any network."""

import sys
from importlib.util import find_spec
from pathlib import Path

import arrayopt

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "arrayopt"
author = "The arrayopt authors"
version = release = arrayopt.__version__
extensions = [
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "catalogue",
    "mathml",
    "play",
    "readme",
    "repository",
]
exclude_patterns = ["_*"]

html_theme = "furo"
html_title = "arrayopt"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
pygments_style, pygments_dark_style = "friendly", "native"

myst_enable_extensions = ["colon_fence", "dollarmath", "linkify"]
myst_linkify_fuzzy_links = False  # https://... alone: a file's name is no address
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_mock_imports = [name for name in ("cupy", "mlx") if find_spec(name) is None]
autodoc_typehints = "none"  # the docstrings say it; arrays of any library have no type
nitpicky = True
nitpick_ignore_regex = [("py:.*", "(?!arrayopt).*")]  # Python's own, and other libraries'
copybutton_prompt_text = ">>> "
