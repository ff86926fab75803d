"""Better motion from imperfect motion: gaps, outliers, smoothing, time base, floor, feet; and cutting and joining."""
