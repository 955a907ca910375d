"""Many replicas: a pool in this process, a pool of Ray actors and its brain, and a fake one for
whoever tests against the protocol."""
