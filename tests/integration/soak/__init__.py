"""A test network that runs for as long as it is told, with faults and constant load; see ``__main__``."""
