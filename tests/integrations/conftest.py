import sys
from pathlib import Path

# The oracle, and beside it what the package's own tests use.
sys.path.insert(0, str(Path(__file__).parent.parent))
