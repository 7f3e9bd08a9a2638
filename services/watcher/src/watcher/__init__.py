"""Keeps a provably complete replica of Kubernetes objects on the bus."""
