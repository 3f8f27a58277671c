"""What all services share: server, channels, errors, identity, settings, telemetry, workers."""
