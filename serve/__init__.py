"""The Ray Serve application: attribute tools, backbone and rank behind deployments, and an HTTP door."""
