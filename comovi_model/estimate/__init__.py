"""Who is in a picture, and the body of each: with the user's CameraHMR, with SAM 3D Body, or with what we ship."""
