"""Makes nginx serve the Ingresses of a cluster."""
