"""What the machine is asked for: files, locks, processes; and where this runs, and how far it is."""
