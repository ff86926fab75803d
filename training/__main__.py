"""``python -m comfyui_comovi.training`` is the ``comovi-train`` command."""

from .cli import command

if __name__ == "__main__":
    command()
