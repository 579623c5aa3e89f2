"""Images: where they come from, how they are decoded and resized, in which order they are trained on."""
