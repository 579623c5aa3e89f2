"""What a tokenizer is worth: image metrics, distances of sets, intervals, and the card that says how."""
