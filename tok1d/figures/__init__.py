"""The paper's figures, drawn from run folders alone."""
