"""What Kubernetes asks of an Ingress controller."""
