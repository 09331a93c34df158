"""The claims of Pass@k Policy Optimization (Walder and Karkhanis, arXiv 2505.15201), tried with this package's ops:
``python -m bench.paper.toy``, ``.variance`` and ``.claims``."""
