"""haproxy-lb: Services of type LoadBalancer, answered by HAProxy at floating addresses."""
