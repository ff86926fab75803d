"""CoMoVi (Zhao et al., 2026): a video branch and a motion branch that are denoised together, with a pose head."""
