"""CameraHMR (Patel & Black, 2025): one picture to an SMPL body in the camera's frame, our own implementation."""
