"""What training minimizes: pixels, perceptual, texture, adversarial, alignment with frozen features."""
