"""Every parameter: its names, types and values, and how they are read from YAML, `-p` and notebook cells."""
