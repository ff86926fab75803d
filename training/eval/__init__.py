"""Measuring generated motions and videos as the paper does, and printing them beside its tables."""
