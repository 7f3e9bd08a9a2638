"""The demo: Seaway serves a sample application on this machine."""
