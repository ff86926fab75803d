"""Looking at motions: over their video, from all sides, as a sheet, as curves and as a page with a 3D player."""
