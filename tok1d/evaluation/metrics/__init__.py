"""What is measured: of each image, of sets of images, of the tokens; and how sure the numbers are."""
