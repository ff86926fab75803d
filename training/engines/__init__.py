"""Two ways to take an optimiser step: plain torch on one device, and DeepSpeed on many."""
