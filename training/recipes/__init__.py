"""What can be trained: the paper's two stages, and the nano model."""
