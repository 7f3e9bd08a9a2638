"""The bus: one protocol, two implementations, and the rules built on top of it."""
