"""From objects to tables: which hosts have which routes, and which backends have which endpoints."""
