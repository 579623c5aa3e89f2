"""A built-in data set: road scenes drawn by index, with weather, time of day and scene as labels."""
