"""From videos and estimated bodies to what a training step reads."""
