"""``python -m comfyui_comovi`` is the ``comovi`` command."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
