"""From a motion map back to a moving body: `fit_map.fit_motion_map`."""

from .fit_map import FitResult, FitSettings, fit_motion_map

__all__ = ["FitResult", "FitSettings", "fit_motion_map"]
