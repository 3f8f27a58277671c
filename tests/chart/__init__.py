"""The chart without a cluster: rendered, validated, scanned. Run with `make chart-test`."""
