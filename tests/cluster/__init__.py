"""The chart on a real cluster, whichever KUBECONFIG names. Run with `make test-cluster`."""
