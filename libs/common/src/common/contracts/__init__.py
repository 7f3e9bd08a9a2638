"""What crosses the bus: names, subjects, messages and projections. Pure."""
