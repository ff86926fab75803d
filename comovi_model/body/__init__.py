"""People in 3D: rotations, the SMPL body, motion records, cameras, the motion map and motion files."""
