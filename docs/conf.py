"""The documentation as a site: `pip install -e '.[docs]' && sphinx-build -W -c docs . site`.

Sources are read where they lie in the repository, so that their links hold in both.
"""

import histospace_tf

project, author = "histospace-tf", "The histospace-tf maintainers"
version = release = histospace_tf.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**"]
include_patterns += ["models/pretrained/*/MODEL_CARD.md"]
exclude_patterns = [".*", "site", "build", "dist"]
html_theme = "furo"
html_title = f"histospace-tf {version}"
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
nb_execution_mode = "off"  # notebooks are executed where they are made and tested
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Source", "returns_style")]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
copybutton_prompt_text = "$ "
suppress_warnings = ["misc.highlighting_failure"]
