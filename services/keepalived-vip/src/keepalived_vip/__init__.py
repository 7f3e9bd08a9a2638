"""Keeps floating addresses on the nodes of a cluster, by VRRP."""
