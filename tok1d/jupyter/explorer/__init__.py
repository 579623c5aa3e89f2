"""One's own picture and models, under a slider, with tokens that can be touched."""
