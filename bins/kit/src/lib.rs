//! What the service binaries share: configuration, telemetry, the accept loop, shutdown.
