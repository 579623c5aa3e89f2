"""What notebooks need: parameters, headless execution, tables, widgets, the static report."""
