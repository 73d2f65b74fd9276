"""How Sphinx builds the site: `sphinx-build -W docs build/docs`."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_jsigr

project = "keras_jsigr"
author = "The keras_jsigr authors"
copyright = author
release = version = keras_jsigr.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["build"]
source_suffix = {".md": "markdown"}

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
# As GitHub makes them, so that links to headings work in both places.
myst_heading_anchors = 4
myst_links_external_new_tab = False
myst_url_schemes = ("http", "https", "mailto")

# Docstrings write code in single backticks.
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Reference", "notes"), ("Endpoints", "notes")]
napoleon_use_ivar = True
autodoc_typehints = "none"
autodoc_member_order = "groupwise"
autodoc_inherit_docstrings = True

html_theme = "furo"
html_title = "keras_jsigr"
html_static_path: list[str] = []
html_theme_options = {
    "source_repository": "https://github.com/keras-jsigr/keras-jsigr/",
    "source_branch": "main",
    "source_directory": "docs/",
}
