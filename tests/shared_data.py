"""Where the real photographs and label files lie, which tests skip without."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("CNNRNN_SHARED", ROOT.parent / "shared")).absolute()
