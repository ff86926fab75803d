"""Choosing which parts of which videos to train on, on one machine or on many."""
