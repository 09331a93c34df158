"""The documents as a site: make docs. Its root is the repository: the README and kernels/README.md are pages too."""

import pkpo_kernels

project = "pkpo_kernels"
author = "the pkpo_kernels developers"
release = pkpo_kernels.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "docs/**.md", "docs/api/*.md", "kernels/README.md"]
html_theme = "furo"
html_title = f"pkpo_kernels {release}"
myst_heading_anchors = 3

# The API reference. The trainers are not installed where the site is built.
autodoc_mock_imports = ["trl", "transformers", "datasets", "accelerate", "verl", "omegaconf"]
autodoc_typehints = "none"  # the docstrings say types, and what is allowed
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False

# Every reference to an object of this package must lead somewhere; words of other projects in lists of arguments need not.
nitpicky = True
nitpick_ignore_regex = [("py:class", r"(?!pkpo_kernels).*")]

# make links follows the links that leave the repository.
linkcheck_anchors = False
