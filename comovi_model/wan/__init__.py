"""One Wan2.2 diffusion branch, its checkpoints and its sampling; every model family of this package builds on it."""
