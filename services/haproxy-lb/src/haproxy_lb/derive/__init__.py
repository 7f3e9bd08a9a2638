"""From objects to what is wanted: claims on addresses, frontends and backends. Pure."""
