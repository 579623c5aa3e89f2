"""What training minimizes: pixels, perceptual, adversarial, alignment with frozen features."""
